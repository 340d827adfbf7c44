"""A listing by directories is the listing, and costs few requests more."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.storage.objects.listing import by_prefixes
from pipeline.storage.objects.listing.by_prefixes import Page, listed_by_prefixes

PAGE = 10


class Container:
    """Keys in order, so many on a page."""

    def __init__(self, keys: list[str]) -> None:
        self.names = sorted(f"c/{key}" for key in keys)
        self.requests = 0

    def pages(self, path: str, delimiter: str) -> Iterator[Page]:
        root = f"{path.rstrip('/')}/"
        below = [name for name in self.names if name.startswith(root)]
        if delimiter:
            heads = (f"{root}{name.removeprefix(root).partition('/')[0]}/" for name in below)
            below = sorted({head if head in name else name
                            for head, name in zip(heads, below, strict=True)})  # fmt: skip
        for start in range(0, max(len(below), 1), PAGE):
            self.requests += 1
            some = below[start : start + PAGE]
            yield Page(
                [{"name": name} for name in some if not name.endswith("/")],
                [name for name in some if name.endswith("/")],
                str(start) if start + PAGE < len(below) else None,
            )


BUCKETS = {
    "few": [f"a/{n}" for n in range(9)],
    "none": [],
    "flat": [f"{n:03d}" for n in range(200)],
    "directories": [f"{n % 9}/{n:03d}" for n in range(300)],
    "deep": [f"p/q/{n % 9}/{n:03d}" for n in range(300)],
    "beside files": [f"{n % 5}/{n:03d}" for n in range(200)] + ["0-x", "2", "3.jpg", "9"],
    "odd": [f"a//{n:03d}" for n in range(50)] + [f"/{n:03d}" for n in range(50)],
    "doubled": [f"a/{n:03d}" for n in range(50)] + [f"a//{n:03d}" for n in range(50)],
    "many small": [f"{n:03d}/x" for n in range(500)],
}


@pytest.mark.parametrize("keys", BUCKETS.values(), ids=BUCKETS)
def test_every_object_once_and_in_order(keys: list[str]) -> None:
    container = Container(keys)
    found = [info["name"] for info in listed_by_prefixes(container.pages, "c")]
    assert found == container.names
    assert container.requests <= 2 * len(keys) / PAGE + by_prefixes.LISTED_AT_ONCE + 2


def test_directories_are_listed_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is answered before all three are asked for."""
    monkeypatch.setattr(by_prefixes, "LISTED_AT_ONCE", 3)
    container = Container([f"{n}/{m:02d}" for n in range(3) for m in range(20)])
    together = threading.Barrier(3, timeout=60)

    def pages(path: str, delimiter: str) -> Iterator[Page]:
        if path != "c":
            together.wait()
        yield from container.pages(path, delimiter)

    assert [info["name"] for info in listed_by_prefixes(pages, "c")] == container.names
