"""What the corrections of an output say together, for people and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from pipeline.contract.corrections import VERDICTS, Correction, newest
from pipeline.output.corrections.accuracy import (
    Accuracy,
    Confusion,
    accuracy,
    accuracy_by_run,
    confusions,
)
from pipeline.output.corrections.collected import load_whole
from pipeline.storage.store import Store

SHOWN = 10


@dataclass(frozen=True)
class Overview:
    """What people said, summed up; the newest correction of each image counts."""

    images: int
    verdicts: dict[str, int]
    """How many images of each verdict."""
    agreed: int
    """Images that are of the proposed class."""
    people: dict[str, int]
    """How many images each person corrected last; those without a name are left out."""
    latest: str
    accuracy: Accuracy | None
    """By the random sample."""
    by_run: dict[str, Accuracy]
    confusions: list[Confusion]
    damaged: tuple[str, ...] = ()
    """What is wrong with files that could not be read."""

    @classmethod
    def of(cls, corrections: Iterable[Correction]) -> Self:
        """Sum up corrections, in the order of their files."""
        known = list(corrections)
        decided = newest(known).values()
        verdicts = Counter(one.verdict for one in decided)
        return cls(
            images=len(decided),
            verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
            agreed=sum(one.verdict == "label" and one.label == one.proposed for one in decided),
            people=dict(Counter(one.who for one in decided if one.who).most_common()),
            latest=max((one.when for one in decided), default=""),
            accuracy=accuracy(known),
            by_run=accuracy_by_run(known),
            confusions=confusions(known),
        )

    @classmethod
    def of_output(cls, store: Store) -> Self:
        """Sum up what stands beside an output; files that are damaged are named, and left out."""
        found, damaged = load_whole(store)
        return replace(cls.of(found), damaged=tuple(damaged))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for scripts."""
        return asdict(self) | {
            "accuracy": self.accuracy and self.accuracy.to_dict(),
            "by_run": {run_id: one.to_dict() for run_id, one in self.by_run.items()},
        }

    def lines(self) -> list[str]:
        """For people."""
        if not self.images:
            return ["no corrections yet; the review page of a run makes some"]
        labels, none, bad = (self.verdicts[verdict] for verdict in VERDICTS)
        by = f", by {', '.join(list(self.people)[:SHOWN])}" if self.people else ""
        lines = [
            f"{self.images:,} images: {labels:,} labelled ({self.agreed:,} as proposed), "
            f"{none:,} of no class, {bad:,} not usable{by}; the latest at {self.latest}"
        ]
        if self.accuracy:
            lines.append(f"the random sample says {self.accuracy}")
            lines += [f"  run {run_id or '?'}: {one}" for run_id, one in self.by_run.items()]
        for one in self.confusions[:SHOWN]:
            lines.append(f"{one.proposed} is really {one.label or 'of no class'}: {one.images:,}")
        return lines
