"""A few images once more, for a page: small, in bounded time, and only those that can be had."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import pyarrow as pa

from pipeline.contract.errors import NOBODYS_FAULT, one_line
from pipeline.contract.schema import WORK
from pipeline.contract.spec import PILLOW_PIXEL_LIMIT
from pipeline.model.network import Preprocessing
from pipeline.monitoring.review.pictures import small_jpeg
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from pipeline.sources.formats.registry import IMAGE, format_of_listed
from pipeline.stages.decode.image import THUMBNAIL_PIXELS
from pipeline.storage.uris import with_ancestors

MOST_BYTES = 16 * 2**20
"""Of a file."""
MOST_MEMBERS = 2_000
"""Of a shard that are read to find some."""

log = logging.getLogger(__name__)


def pictures(
    uris: Sequence[str], preprocessing: Preprocessing, seconds: float
) -> Mapping[str, str]:
    """Thumbnails as the model sees the images, JPEG in base 64, by uri. One that is gone, broken,
    large or far down in a shard is left out, and what is not there after ``seconds``, too."""
    found: dict[str, str] = {}

    def gather() -> None:
        try:
            for item in _items(uris):
                if (shot := _shot(item, preprocessing)) is not None:
                    found[item.uri] = shot
        except NOBODYS_FAULT:
            raise
        except BaseException as error:  # noqa: BLE001  # of a page without pictures nothing is lost
            log.warning("pictures are missing: %s", one_line(error))

    reading = threading.Thread(target=gather, daemon=True)
    reading.start()
    reading.join(seconds)
    return dict(found)


def _items(uris: Sequence[str]) -> Iterator[Item]:
    """The files of the images that stand for themselves, then those in shards."""
    shards: dict[str, set[str]] = {}
    single = []
    for uri in uris:
        shard = _shard(uri)
        if shard is None:
            single.append(uri)
        else:
            shards.setdefault(shard, set()).add(uri)
    yield from fetch_items(_work(single), MOST_BYTES)
    for shard, wanted in shards.items():
        for item in islice(fetch_items(_work([shard]), MOST_BYTES), MOST_MEMBERS):
            if item.uri in wanted:
                yield item
                wanted.discard(item.uri)
            if not wanted:
                break


def _shard(uri: str) -> str | None:
    """The shard that an image is in, by the looks of its name; None if it is a file."""
    *ancestors, _ = with_ancestors(uri)
    return next((name for name in ancestors if format_of_listed(name) is not IMAGE), None)


def _work(uris: Sequence[str]) -> pa.Table:
    rows = [{"uri": uri, "kind": format_of_listed(uri).kind} for uri in uris]
    return pa.Table.from_pylist(rows, schema=WORK)


def _shot(item: Item, preprocessing: Preprocessing) -> str | None:
    if item.data is None:
        return None
    try:
        pixels = preprocessing.decode(item.data, mode="fast", max_pixels=PILLOW_PIXEL_LIMIT).pixels
    except NOBODYS_FAULT:
        raise
    except BaseException:  # noqa: BLE001  # decoders raise whatever they like
        return None
    return base64.b64encode(small_jpeg(pixels, THUMBNAIL_PIXELS)).decode()
