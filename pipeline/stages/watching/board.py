"""What the workers of a run have reported: an actor, which therefore loads nothing else."""

from __future__ import annotations

import time
from collections import Counter, defaultdict


class Board:
    """Sums what the workers report. Lives in an actor of its own."""

    def __init__(self) -> None:
        self.nodes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.agreed: dict[str, float] = {}
        self.messages: list[str] = []

    def add(self, numbers: dict[str, float], node: str) -> None:
        self.nodes[node].update(numbers)

    def read(self) -> dict[str, float]:
        totals: Counter[str] = Counter()
        for counter in self.nodes.values():
            totals.update(counter)
        return dict(totals) | self.agreed

    def say(self, message: str) -> None:
        self.messages.append(message)

    def agree(self, name: str, value: float) -> float:
        return self.agreed.setdefault(name, value)

    def now(self) -> float:
        return time.time()

    def take_messages(self) -> list[str]:
        """Those that have not been taken yet."""
        messages, self.messages = self.messages, []
        return messages

    def by_node(self) -> dict[str, dict[str, float]]:
        return {node: dict(counter) for node, counter in self.nodes.items()}
