"""Rows of work and the items that are fetched for them."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.contract.errors import ERROR_CODES
from pipeline.contract.schema import WORK
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item

MIB = 2**20


def work(*rows: dict[str, Any]) -> pa.Table:
    defaults = {"kind": "image", "source_version": "v", "size_bytes": 1, "_done": None}
    return pa.Table.from_pylist([defaults | row for row in rows], schema=WORK)


def fetch(*uris: str | Path, max_bytes: int = MIB, **row: Any) -> list[Item]:
    table = work(*({"uri": str(uri), **row} for uri in uris))
    return list(fetch_items(table, max_bytes))


def code(item: Item) -> str | None:
    """The item's error code; a code comes with a printable line and without bytes."""
    if item.error is None:
        assert item.data is not None
        return None
    assert item.data is None
    assert item.error.code in ERROR_CODES
    assert str(item.error).isprintable()
    return item.error.code
