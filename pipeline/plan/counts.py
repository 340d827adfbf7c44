"""What a plan found, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.contract.manifest import describe_not_taken


@dataclass
class Counts:
    """Images by what the plan found out about them; a shard counts as one until it is read."""

    new: int = 0
    changed: int = 0
    retried: int = 0
    unchanged: int = 0
    """Rows of earlier closed runs that remain valid: ``skipped`` in the manifest's counts."""
    finished: int = 0
    """Rows that an earlier attempt of this run has committed."""
    vanished: int = 0
    failed_before: Counter[str] = field(default_factory=Counter)
    """Rows that remain valid but are failures, by error code."""
    shards: int = 0
    """Shards to read (in whole or from where an attempt left off)."""
    excluded: int = 0
    """Images and shards that ``InputSpec.exclude`` leaves out."""
    not_taken: dict[str, int] = field(default_factory=dict)
    """Files of other kinds, by extension, most frequent first; excluded and hidden ones are not
    among them."""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "failed_before": dict(self.failed_before)}

    def line(self, of_shards: str = "") -> str:
        """What there is, in one line; ``of_shards`` says more of these."""
        known = {
            "new": self.new,
            "changed": self.changed,
            "tried again": self.retried,
            "unchanged": self.unchanged,
            "finished before the interruption": self.finished,
            "vanished": self.vanished,
            "excluded": self.excluded,
        }
        shards = f" ({self.shards} of them shards{of_shards})" if self.shards else ""
        found = ", ".join(f"{number} {name}" for name, number in known.items() if number)
        others = f"; {describe_not_taken(self.not_taken)}" if self.not_taken else ""
        return f"{found or 'nothing listed'}{shards}{others}"
