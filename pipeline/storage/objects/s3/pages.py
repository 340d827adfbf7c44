"""Pages of a bucket's listing, each by one signed GET.

botocore's own client takes ten times the CPU time, nearly all of it for reading the XML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pipeline.contract.errors import FetchError
from pipeline.storage.objects.ranges import KeyPage, listed_in_ranges
from pipeline.storage.objects.s3.requests import answer, insist, refusal
from pipeline.storage.retry import PassingError

PAGE_KEYS = 1000
"""More than these S3 never sends."""
AWAY_SECONDS = 30.0
"""A listing waits so long for a server that is busy or away: it is the first thing that a run asks
for, and a wrong endpoint should be told soon."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as the listing has it."""

    key: str
    size: int
    """In bytes."""
    etag: str
    """Without its quotation marks."""


@dataclass(frozen=True)
class Page:
    """What one answer holds."""

    objects: list[Listed]
    continuation: str | None
    """Asks for the next page; None on the last."""


def list_objects(bucket: str, prefix: str) -> Iterator[Listed]:
    """Every object whose key starts with ``prefix``, in the bucket's order, by several requests at
    once; few pages at a time are in memory.

    Raises:
        FileNotFoundError: there is no such bucket.
        PermissionError: it may not be listed.
        OSError: S3 does not answer, or not with a listing.
    """

    def read(after: str, continuation: str | None) -> KeyPage[Listed]:
        page = _read_page(bucket, prefix, after, continuation)
        return KeyPage([found.key for found in page.objects], page.objects, page.continuation)

    return listed_in_ranges(read, prefix)


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
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise PassingError("storage_error", f"a page of the listing is cut off: {error}") from error
    namespace, _, name = root.tag.rpartition("}")
    space = f"{namespace}}}" if namespace else ""
    if name != "ListBucketResult":
        raise PassingError("storage_error", f"S3 answers with {name} where a listing was asked for")
    is_encoded = root.findtext(f"{space}EncodingType") == "url"
    objects = [_listed(node, space, is_encoded) for node in root.iterfind(f"{space}Contents")]
    if root.findtext(f"{space}IsTruncated") != "true":
        return Page(objects, None)
    continuation = root.findtext(f"{space}NextContinuationToken")
    if not continuation:
        raise FetchError("storage_error", "S3 does not say how its listing goes on")
    return Page(objects, continuation)


def _listed(node: Element, space: str, is_encoded: bool) -> Listed:
    key = node.findtext(f"{space}Key", "")
    size = int(node.findtext(f"{space}Size", "0"))
    etag = node.findtext(f"{space}ETag", "").strip('"')
    return Listed(unquote_plus(key) if is_encoded else key, size, etag)
