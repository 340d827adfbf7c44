"""Where the work of a closing is done: in this process, or wherever the caller knows of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class Tasks(Protocol):
    """Calls functions that depend on nothing but their argument and may be called again."""

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """The results for all items, in their order."""
        ...

    def exchange(
        self,
        function: Callable[[A], tuple[B, Sequence[C]]],
        items: Sequence[A],
        ranges: int,
        reduce: Callable[[Sequence[C]], D],
    ) -> tuple[list[B], list[D]]:
        """The results for all items, and for each range what ``reduce`` makes of its pieces.

        Args:
            function: returns a result and one piece for each of the ``ranges``. Pieces may be
                large, and do not pass through this process.
        """
        ...


class InThisProcess:
    """One item after the other, here."""

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        return [function(item) for item in items]

    def exchange(
        self,
        function: Callable[[A], tuple[B, Sequence[C]]],
        items: Sequence[A],
        ranges: int,
        reduce: Callable[[Sequence[C]], D],
    ) -> tuple[list[B], list[D]]:
        done = [function(item) for item in items]
        reduced = [reduce([pieces[number] for _, pieces in done]) for number in range(ranges)]
        return [result for result, _ in done], reduced
