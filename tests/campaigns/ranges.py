"""How well a long listing is divided: tasks that are busy at a time, in a simulation.

    python -m tests.campaigns.ranges [--pages 10000] [--tasks 64] [--milliseconds 30]

A store in memory answers every page so many milliseconds late, and tasks are threads, so that only
waiting counts. Names are of several kinds; ten stand for the thousand of a real page.
"""

import argparse
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from jobs.bench.measure.tables import table
from pipeline.storage.objects.listing.ranges import listed_in_ranges
from pipeline.storage.objects.listing.stretches import Far, KeyPage
from tests.support.inputs.listing import PAGE, Bucket, Nearby, single, together

Name = Callable[[int, int], str]
"""Of a number, of so many."""


def _of_days(number: int, of: int) -> str:
    day = number * 364 // of
    return f"2026/{day // 30 + 1:02d}/{day % 30 + 1:02d}/IMG_{number * 7919 % of:06d}.jpg"


NAMES: dict[str, Name] = {
    "one directory, `image-000000000.jpg`": lambda n, of: f"image-{n:09d}.jpg",
    "997 directories, `000/image-000000000.jpg`": lambda n, of: f"{n % 997:03d}/image-{n:09d}.jpg",
    "12 directories, `2026-01/IMG_000000.jpg`": lambda n, of: f"2026-{n % 12:02d}/IMG_{n:06d}.jpg",
    "364 days, `2026/01/01/IMG_000000.jpg`": _of_days,
    "UUIDs": lambda n, of: str(uuid.UUID(int=Random(n).getrandbits(128))),
}


@dataclass
class Late(Bucket):
    """A store that answers late."""

    seconds: float = 0.01

    def read(self, after: str, token: str | None) -> KeyPage[str]:
        time.sleep(self.seconds)
        return super().read(after, token)


@dataclass
class Tasks(Nearby):
    """Who know how long they were busy in all."""

    spans: list[float] = field(default_factory=list)

    def call(self, function: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return super().call(function)
        finally:
            self.spans.append(time.perf_counter() - started)


def measure(name: Name, pages: int, tasks: int, seconds: float) -> tuple[str, ...]:
    """Tasks that are busy on average, requests, stretches, and wall time in that of a page."""
    number = pages * PAGE
    bucket = Late([name(n, number) for n in range(number)], seconds=seconds)
    helpers = Tasks(bucket, ready_after=10, at_once=tasks)
    started = time.perf_counter()
    listing = listed_in_ranges(bucket.read, "", Far(helpers, together))
    assert sum(1 for _ in single(listing)) == number
    wall = time.perf_counter() - started
    busy = f"{sum(helpers.spans) / wall:.0f}"
    return busy, str(len(bucket.requests)), str(helpers.calls), f"{wall / seconds:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--milliseconds", type=float, default=30.0)
    args = parser.parse_args()
    options = args.pages, args.tasks, args.milliseconds / 1e3
    rows = [(title, *measure(name, *options)) for title, name in NAMES.items()]
    print(table(("names", "busy", "requests", "stretches", "wall, pages"), rows))


if __name__ == "__main__":
    main()
