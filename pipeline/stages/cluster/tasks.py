"""The work of a closing as Ray tasks. Workers load nothing else for it, no network above all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from pipeline.stages.watching.reach import elsewhere, reaching
from pipeline.storage.filesystems import WorkerEnvironment

TRIES = 3
"""More, when a worker or its node is lost."""

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@dataclass(frozen=True)
class RayTasks:
    """Calls functions in tasks of one CPU each, which see the storage as this process does. What a
    function raises is raised here."""

    environment: WorkerEnvironment
    output: str = ""
    """URI of what they read and write."""

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        return _results(self._sent(function, items))

    def exchange(
        self,
        function: Callable[[A], tuple[B, Sequence[C]]],
        items: Sequence[A],
        ranges: int,
        reduce: Callable[[Sequence[C]], D],
    ) -> tuple[list[B], list[D]]:
        results, pieces = self.spread(function, items, ranges)
        send: Any = ray.remote(_reduce).options(num_cpus=1, max_retries=TRIES, **elsewhere())
        return results, _results([send.remote(reduce, *refs) for refs in pieces])

    def spread(
        self, function: Callable[[A], tuple[B, Sequence[C]]], items: Sequence[A], ranges: int
    ) -> tuple[list[B], list[list[Any]]]:
        """The results for all items, and for each range references to its pieces, which stay where
        they were made. As long as these are held, a piece that is lost is made again."""
        sent = self._sent(partial(_side_by_side, function), items, num_returns=1 + ranges)
        results: list[B] = _results([refs[0] for refs in sent])
        return results, [[refs[1 + number] for refs in sent] for number in range(ranges)]

    def _sent(self, function: Callable[[A], Any], items: Sequence[A], **options: Any) -> list[Any]:
        send: Any = ray.remote(_call).options(
            num_cpus=1, max_retries=TRIES, **options, **elsewhere()
        )
        shared = ray.put((self, function))
        return [send.remote(shared, item) for item in items]


def _call(shared: tuple[RayTasks, Callable[[A], B]], item: A) -> B:
    tasks, function = shared
    tasks.environment.apply()
    with reaching(tasks.output):
        return function(item)


def _side_by_side(function: Callable[[A], tuple[B, Sequence[C]]], item: A) -> tuple[B | C, ...]:
    """The result and each piece as objects of their own."""
    result, pieces = function(item)
    return result, *pieces


def _reduce(reduce: Callable[[Sequence[C]], D], *pieces: C) -> D:
    return reduce(pieces)


def cause_of(error: RayTaskError) -> Exception:
    """What was raised in a task or by a method of an actor, without the way that it took."""
    return error.cause if isinstance(error.cause, Exception) else error


def _results(sent: list[Any]) -> list[Any]:
    try:
        return list(ray.get(sent))
    except RayTaskError as error:
        for ref in sent:
            ray.cancel(ref)
        raise cause_of(error) from None
