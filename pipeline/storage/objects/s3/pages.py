"""Pages of a bucket's listing, each by one signed GET.

botocore's own client takes many times the CPU time, nearly all of it for reading the XML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote, unquote_plus, urlencode

from pipeline.contract.errors import FetchError
from pipeline.storage.objects.listing.ranges import listed_in_ranges
from pipeline.storage.objects.listing.stretches import Far, KeyPage
from pipeline.storage.objects.s3.page_texts import OF_OBJECTS, page_texts
from pipeline.storage.objects.s3.requests import answer, insist, refusal
from pipeline.storage.retry import PassingError

PAGE_KEYS = 1000
"""More than these S3 never sends."""
AWAY_SECONDS = 30.0
"""A listing waits so long for a server that is busy or away: it is the first thing that a run asks
for, and a wrong endpoint should be told soon."""

M = TypeVar("M")


Listed = tuple[str, int, str]
"""An object as the listing has it: its key, its size in bytes, and its ETag without the quotation
marks."""


@dataclass(frozen=True)
class Page:
    """What one answer holds."""

    objects: list[Listed]
    continuation: str | None
    """Asks for the next page; None on the last."""


def list_objects(
    bucket: str, prefix: str, far: Far[Listed, M] | None = None
) -> Iterator[Listed | M]:
    """Every object whose key starts with ``prefix``, in the bucket's order, by several requests at
    once; few pages at a time are in memory.

    Args:
        far: where stretches of many objects are listed, and become one thing each.

    Raises:
        FileNotFoundError: there is no such bucket.
        PermissionError: it may not be listed.
        OSError: S3 does not answer, or not with a listing.
    """
    return listed_in_ranges(partial(_key_page, bucket, prefix), prefix, far)


def _key_page(bucket: str, prefix: str, after: str, continuation: str | None) -> KeyPage[Listed]:
    page = _read_page(bucket, prefix, after, continuation)
    return KeyPage([key for key, _, _ in page.objects], page.objects, page.continuation)


def _read_page(bucket: str, prefix: str, after: str, continuation: str | None) -> Page:
    query = {"encoding-type": "url", "list-type": "2", "prefix": prefix}
    query["max-keys"] = str(PAGE_KEYS)
    if continuation is not None:
        query["continuation-token"] = continuation
    elif after:
        query["start-after"] = after
    path = "?" + urlencode(sorted(query.items()), quote_via=quote, safe="~")
    return insist(lambda: _ask(bucket, path), AWAY_SECONDS)


def _ask(bucket: str, path: str) -> Page:
    response = answer(bucket, "GET", path, patient=True)
    if response.status_code >= 300:
        raise refusal(response)
    return parse_page(response.content)


def parse_page(xml: bytes) -> Page:
    """A page as S3 writes it: ListBucketResult of ListObjectsV2.

    Raises:
        FetchError: it is cut off, or something else.
    """
    root, texts = page_texts(xml)
    if root != "ListBucketResult":
        raise PassingError("storage_error", f"S3 answers with {root} where a listing was asked for")
    keys, sizes, etags = (texts[name] for name in OF_OBJECTS)
    if texts["EncodingType"] == ["url"]:
        keys = _unquoted(keys)
    try:
        numbers = [int(size or 0) for size in sizes]
        objects = list(zip(keys, numbers, [etag.strip('"') for etag in etags], strict=True))
    except ValueError as error:
        raise PassingError("storage_error", f"S3 answers with an odd listing: {error}") from error
    if texts["IsTruncated"] != ["true"]:
        return Page(objects, None)
    continuation = "".join(texts["NextContinuationToken"])
    if not continuation:
        raise FetchError("storage_error", "S3 does not say how its listing goes on")
    return Page(objects, continuation)


def _unquoted(keys: list[str]) -> list[str]:
    """Most are the same."""
    together = "".join(keys)
    return [unquote_plus(key) for key in keys] if "%" in together or "+" in together else keys
