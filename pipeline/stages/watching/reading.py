"""The numbers of a run in progress, the same ones for a log and for a terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

WINDOW_SECONDS = 30.0
"""A speed is that of so long; the whole run would count its start."""


@dataclass(frozen=True)
class Reading:
    """How far a run is; as text, a line: how many, how fast, how many failed, how much is left."""

    totals: Mapping[str, float]
    """What the workers reported."""
    rate: float
    """Images per second, lately."""
    expected: int | None
    """Images to do; None while shards, or a listing in progress, leave the number open."""
    done: int
    """Images that earlier attempts committed."""
    is_certain: bool = True
    """Whether there are exactly as many as expected; else that is an estimate, and told as one."""
    pool: str = ""
    """How many actors there are, where their number changes, and what is waited for."""

    @property
    def all_images(self) -> int:
        """Those of earlier attempts as well."""
        return int(self.totals.get("inferred", 0)) + self.done

    def __str__(self) -> str:
        return f"{self.images}; {self.pool}" if self.pool else self.images

    @property
    def images(self) -> str:
        """How many, how fast, how many failed, how much is left."""
        of = f" of {self._about}{self.expected + self.done}" if self.expected else ""
        failed = int(self.totals.get("failed", 0))
        return f"{self.all_images}{of} images, {_speed(self.rate)}, {failed} failed{self._left}"

    @property
    def _left(self) -> str:
        if not self.expected or not self.rate:
            return ""
        remaining = max(self.expected - int(self.totals.get("inferred", 0)), 0)
        return f", {self._about}{_duration(remaining / self.rate)} left"

    @property
    def _about(self) -> str:
        return "" if self.is_certain else "about "

    @property
    def stages(self) -> str:
        """What an image costs each stage, and how many wait between them."""
        actors, decoded = int(self.totals.get("actors", 0)), int(self.totals.get("decoded", 0))
        inferred = int(self.totals.get("inferred", 0))
        if not actors:
            return "starting: replicas of the model load and check themselves"
        if not decoded:
            return f"starting: {actors} replicas of the model are ready, the first images are read"
        parts = [f"decode {1000 * self.totals.get('decode_seconds', 0) / decoded:.0f} ms/image"]
        if inferred:
            parts.append(
                f"model {1000 * self.totals.get('infer_seconds', 0) / inferred:.0f} ms/image"
            )
        return ", ".join([*parts, f"{max(decoded - inferred, 0)} wait for the model"])


class Pace:
    """The speed of the last WINDOW_SECONDS, from the first result on.

    Args:
        now: when there is no image yet.
    """

    def __init__(self, now: float) -> None:
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def rate(self, images: int, now: float) -> float:
        """Images per second, given how many there are now; 0 before the first, and where nobody
        says how many."""
        if not images:
            if not self._seen[-1][1]:
                self._seen[-1] = (now, 0)
            return 0.0
        self._seen.append((now, images))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (images - before) / (now - since) if now > since else 0.0


def _speed(rate: float) -> str:
    return f"{1 / rate:.1f} s/image" if 0 < rate < 1 else f"{rate:.1f}/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
