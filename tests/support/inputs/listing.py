"""Files to be listed, and what the listing says of them."""

from pathlib import Path
from typing import Any

from pipeline.contract.schema import LISTING
from pipeline.contract.spec import InputSpec
from pipeline.sources.inventory import CHUNK_ROWS, inventory

KEYS = [
    "a b.jpg",
    "#1.jpg",
    "100%.jpg",
    "%20.jpg",
    "what?.jpg",
    "q?versionId=1.jpg",
    "a::b.jpg",
    "plus+&=.jpg",
    "[x]*.jpg",
    "new\nline.jpg",
    "ünï/日本.png",
]


def rows(*uris: str | Path, **options: Any) -> list[dict[str, Any]]:
    """All listed rows; ``options`` are those of InputSpec and ``exclude``. Only lines of lists that
    name nothing have a refusal, only URLs with secrets an address, and only Parquet a number."""
    exclude = options.pop("exclude", "")
    spec = InputSpec(uris=tuple(map(str, uris)), **options)
    tables = list(inventory(spec, exclude=exclude))
    assert all(table.schema == LISTING and 0 < len(table) <= CHUNK_ROWS for table in tables)
    found = [row for table in tables for row in table.to_pylist()]
    rare = ("refusal", "address", "images")
    return [{name: row[name] for name in row if name not in rare or row[name]} for row in found]


def uris(*args: str | Path, **options: Any) -> list[str]:
    return [row["uri"] for row in rows(*args, **options)]


def touch(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return [str(root / name) for name in names]
