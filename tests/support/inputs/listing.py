"""Files to be listed, and what the listing says of them."""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.contract.schema import LISTING
from pipeline.contract.spec import InputSpec
from pipeline.sources.inventory import CHUNK_ROWS, inventory
from pipeline.storage.objects.listing.stretches import KeyPage

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
PAGE = 10
"""Keys that a ``Bucket`` lists at a time."""


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


@dataclass
class Bucket:
    """Keys in the order of a store, which lists so many at a time."""

    keys: list[str]
    order: Callable[[str], Any] = str
    ignores_start: bool = False
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = sorted(self.keys, key=self.order)

    def read(self, after: str, token: str | None) -> KeyPage[str]:
        start = 0 if self.ignores_start else self.first_after(after)
        if token is not None:
            start = int(token)
        self.requests.append(after)
        found = self.keys[start : start + PAGE]
        is_last = start + PAGE >= len(self.keys)
        return KeyPage(found, [f"<{key}>" for key in found], None if is_last else str(start + PAGE))

    def first_after(self, after: str) -> int:
        return bisect_right(self.keys, self.order(after), key=self.order) if after else 0


@dataclass
class Nearby:
    """Helpers in this process, who are ready after so many requests."""

    bucket: Bucket
    ready_after: int
    at_once: int = 64
    calls: int = 0

    @property
    def is_ready(self) -> bool:
        return len(self.bucket.requests) >= self.ready_after

    def call(self, function: Callable[[], Any]) -> Any:
        self.calls += 1
        return function()


def together(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def single(found: Iterator[str | tuple[str, ...]]) -> Iterator[str]:
    """Names, also those that came together."""
    for one in found:
        yield from [one] if isinstance(one, str) else one


def wait_for_rest(bucket: Bucket) -> None:
    """Until nothing more is asked for."""
    number = -1
    while number < len(bucket.requests):
        number = len(bucket.requests)
        time.sleep(0.1)
