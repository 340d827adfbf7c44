"""A plan in words: what a run would do, and how long it would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.contract.manifest import Manifest, describe_not_taken
from pipeline.output.ledger.history import History
from pipeline.plan.diff import Plan
from pipeline.plan.shards import Estimate

IMAGES_FOR_A_SPEED = 100
"""A shorter run says more about Ray's start than about speed."""


@dataclass(frozen=True)
class Forecast:
    """A plan, and the speed of the last comparable run, if there was one."""

    plan: Plan
    images_per_second: float | None

    @classmethod
    def of(cls, plan: Plan, history: History, *, in_shadow: bool = False) -> Forecast:
        """Judge by the newest closed run that computed at least ``IMAGES_FOR_A_SPEED``.

        Args:
            in_shadow: whether a second model will see the images, too.
        """
        for run in history.nights:
            if run.timings.inferred >= IMAGES_FOR_A_SPEED and run.timings.execute:
                seconds = _seconds(run, in_shadow=in_shadow)
                return cls(plan, run.timings.inferred / seconds if seconds else None)
        return cls(plan, None)

    @property
    def seconds(self) -> float | None:
        """For the images of shards too, if it is known about how many they are."""
        if self.images_per_second is None:
            return None
        images = self._images.images if self._images else self.plan.num_images
        return images / self.images_per_second

    @property
    def _images(self) -> Estimate | None:
        return self.plan.images_to_do()

    def lines(self) -> list[str]:
        """For a person to read."""
        counts = self.plan.counts
        numbers = {
            "new": counts.new,
            "changed": counts.changed,
            "tried again": counts.retried,
            "unchanged": counts.unchanged,
            "vanished": counts.vanished,
            "finished by an interrupted run": counts.finished,
            f"of these, shards to read{self._in_shards}": counts.shards,
            "excluded": counts.excluded,
        }
        lines = [f"{number:>12,}  {name}" for name, number in numbers.items() if number]
        for code, number in sorted(counts.failed_before.items()):
            lines.append(f"{number:>12,}  failed before: {code}")
        if counts.not_taken:
            total = sum(counts.not_taken.values())
            lines.append(f"{total:>12,}  {describe_not_taken(counts.not_taken).split(' ', 1)[1]}")
        names = [f"{'':>12}  {name}" for name in self.plan.first_names]
        if names:
            names.insert(0, "first of what there is to do:")
        return [*(lines or ["nothing is listed"]), *names, self._duration()]

    def to_dict(self) -> dict[str, Any]:
        """For a script to read; ``seconds`` is None where there is no estimate."""
        counts = self.plan.counts.to_dict()
        names = list(self.plan.first_names)
        shards = self.plan.shard_images.estimate({})
        return counts | {
            "shard_images": None if shards is None else shards.images,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
            "first": names,
        }

    @property
    def _in_shards(self) -> str:
        found = self.plan.shard_images.estimate({})
        return f", with {found} images" if found else ""

    def _duration(self) -> str:
        if self.seconds is None or self.images_per_second is None:
            return "no estimate: no earlier run computed enough images to know the speed"
        more = "" if self._images else ", and the shards"
        minutes = self.seconds / 60
        return f"about {minutes:.1f} minutes at {self.images_per_second:.1f} images/s{more}"


def _seconds(run: Manifest, *, in_shadow: bool) -> float | None:
    """What a run took, or would have taken with, or without, a second model, which costs every
    actor as much time as the first one; None if the run does not say how much that was."""
    timings, had_one = run.timings, run.shadow is not None
    if in_shadow == had_one:
        return timings.execute
    actors, inferring = (run.actors or {}).get("reached"), timings.reported.get("infer_seconds")
    if not actors or inferring is None:
        return None
    second = inferring / actors / (2 if had_one else 1)
    return timings.execute + (second if in_shadow else -second)
