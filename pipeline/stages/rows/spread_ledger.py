"""A ledger that is too large for one machine: parts of it in actors all over the cluster.

Each part has the objects in one range of hashes. Those of earlier runs it loads from what closings
have written of the rows' hashes; those of an open run come from tasks, which read its parts and
leave a piece for each range. It knows nothing else: a part that is lost with its node is loaded
again, on another one. What the listing has met is remembered by the driver, a bit for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any, Self
from weakref import WeakSet

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.output.ledger.committed import ledger_of, portions, split_rows
from pipeline.output.ledger.hashes import (
    Hashes,
    HashIndex,
    HashRange,
    Keys,
    Mask,
    Positions,
    ShardNames,
    ranges_of,
)
from pipeline.output.ledger.history import History
from pipeline.output.ledger.known import Known, Matches
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.open_run import OpenRun
from pipeline.stages.cluster.growth import can_grow, nodes
from pipeline.stages.cluster.tasks import RayTasks, cause_of
from pipeline.stages.watching.reach import elsewhere
from pipeline.storage.filesystems import WorkerEnvironment

ROWS_PER_PART = 4_000_000
MOST_PARTS = 64
"""More would each be asked for a few rows of a listed table."""
BYTES_PER_ROW = 160
"""While a part is loaded, which takes three times what it keeps."""
RESTARTS = 10
"""Of a part, whose node may be lost more than once in a run of days."""
LOOK_SECONDS = 30.0
"""After so long without an answer, the driver looks whether there is room for the parts. Ray waits
for it for ever."""


class Part:
    """What the ledger says of the objects in one range of hashes, which is what ``load`` makes of
    the other arguments."""

    def __init__(
        self, environment: WorkerEnvironment, load: Callable[..., Ledger], *range_: Any
    ) -> None:
        environment.apply()
        self._ledger = load(*range_)

    def described(self) -> tuple[list[str], tuple[int, int]]:
        """The error codes, and how many rows and shards there are."""
        return self._ledger.codes, self._ledger.sizes

    def match(self, keys: Keys, are_shards: bool) -> Matches:
        """Compare listed objects of this range with the rows."""
        return self._ledger.match(keys, are_shards=are_shards)

    def vanished(self, met: Mask, met_shards: Mask, now: Known | None) -> HashIndex:
        """As ``Known.vanished``, of the rows of this range."""
        return self._ledger.vanished(met, met_shards, now)

    def stale(self, same: Mask, same_shards: Mask) -> HashIndex:
        """As ``Known.stale``, of the rows of this range."""
        return self._ledger.stale(same, same_shards)

    def look_up(self, uris: Hashes, shards: Hashes) -> tuple[Mask, Mask]:
        """As ``Known.look_up``, for rows of this range."""
        return self._ledger.look_up(uris, shards)


@dataclass(frozen=True, eq=False)
class SpreadLedger(Known):
    """Rows of earlier runs, or of an open one, in actors that hold a range of hashes each."""

    shard_names: ShardNames
    parts: Sequence[Any]
    """Handles of the actors, by their ranges."""
    all_codes: tuple[str, ...]
    code_at: tuple[list[int], ...]
    """Of each part: the positions of its codes among all."""
    row_ends: Any
    """How many rows there are up to each part, from 0 on; positions count through all parts."""
    shard_ends: Any
    part_bytes: int
    """What each part is promised of its node's memory."""
    arguments: Sequence[Any]
    """References to what the actors are started with. Ray starts a lost one again only as long as
    somebody holds them (ray-project/ray#53727)."""

    @classmethod
    def load(
        cls,
        history: History,
        names: ShardNames,
        environment: WorkerEnvironment,
        number: int | None = None,
    ) -> Self:
        """Start the actors on the Ray that is connected, and wait until they have read their rows.

        Args:
            number: how many there are; by default as many as the rows need.

        Raises:
            RunError: one of them could not.
            UsageError: the nodes have no room for them.
        """
        number = number or _parts_for(history.rows)
        ranges = [(HashRange(n, number),) for n in range(number)]
        load = partial(history.ledger, names)
        return cls._start(names, environment, load, ranges, history.rows)

    @classmethod
    def gather(
        cls, open_run: OpenRun, names: ShardNames, tasks: RayTasks, number: int | None = None
    ) -> Self:
        """The same for the rows that an open run has, which are read and hashed in tasks."""
        number = number or _parts_for(open_run.rows)
        split = partial(split_rows, store=open_run.store, names=names, ranges=number)
        some = list(portions((part.name, part.rows) for part in open_run.parts))
        _, pieces = tasks.spread(split, some, number)
        load = partial(ledger_of, names)
        return cls._start(names, tasks.environment, load, pieces, open_run.rows)

    @classmethod
    def _start(
        cls,
        names: ShardNames,
        environment: WorkerEnvironment,
        load: Callable[..., Ledger],
        ranges: Sequence[Sequence[Any]],
        rows: int,
    ) -> Self:
        number = len(ranges)
        part_bytes = max(ceil(rows / number), 1) * BYTES_PER_ROW
        start: Any = ray.remote(Part).options(
            num_cpus=0,  # they wait most of the time, while the CPUs decode
            memory=part_bytes,
            scheduling_strategy="SPREAD",
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            **elsewhere(),
        )
        shared = [ray.put(environment), ray.put(load)]
        parts = [start.remote(*shared, *range_) for range_ in ranges]
        described = _answers([part.described.remote() for part in parts], parts, part_bytes)
        codes = list(dict.fromkeys(code for found, _ in described for code in found))
        ledger = cls(
            names,
            parts,
            tuple(codes),
            tuple([codes.index(code) for code in found] for found, _ in described),
            np.cumsum([0, *(rows for _, (rows, _) in described)]),
            np.cumsum([0, *(shards for _, (_, shards) in described)]),
            part_bytes,
            [*shared, *ranges],
        )
        _LEDGERS.add(ledger)
        return ledger

    def __getstate__(self) -> dict[str, Any]:
        """Whoever gets a copy asks the parts; that they are started again, this one sees to."""
        return {**vars(self), "arguments": ()}

    @property
    def names(self) -> ShardNames:
        return self.shard_names

    @property
    def codes(self) -> list[str]:
        return list(self.all_codes)

    @property
    def sizes(self) -> tuple[int, int]:
        return int(self.row_ends[-1]), int(self.shard_ends[-1])

    def match(self, keys: Keys, *, are_shards: bool) -> Matches:
        asked = list(self._asked(keys.owners))
        sent = [self.parts[n].match.remote(keys.take(at), are_shards) for n, at in asked]
        ends = self.shard_ends if are_shards else self.row_ends
        all_found = _nothing(len(keys.owners), len(self.all_codes))
        for (n, at), found in zip(asked, self._answers(sent), strict=True):
            all_found.known[at] = found.known
            all_found.same[at] = found.same
            all_found.at[at] = found.at + ends[n]
            all_found.rows[at] = found.rows
            all_found.failures[np.ix_(at, np.array(self.code_at[n], np.intp))] = found.failures
        return all_found

    def vanished(self, met: Mask, met_shards: Mask, now: Known | None) -> HashIndex:
        shared = ray.put(now)
        return self._sorted(
            part.vanished.remote(*marks, shared) for part, *marks in self._marked(met, met_shards)
        )

    def stale(self, same: Mask, same_shards: Mask) -> HashIndex:
        return self._sorted(
            part.stale.remote(*marks) for part, *marks in self._marked(same, same_shards)
        )

    def look_up(self, uris: Hashes, shards: Hashes) -> tuple[Mask, Mask]:
        asked = list(self._asked(np.where(shards != 0, shards, uris)))
        sent = [self.parts[n].look_up.remote(uris[at], shards[at]) for n, at in asked]
        there, replaced = np.zeros(len(uris), bool), np.zeros(len(uris), bool)
        for (_, at), (some_there, some_replaced) in zip(asked, self._answers(sent), strict=True):
            there[at], replaced[at] = some_there, some_replaced
        return there, replaced

    def _asked(self, owners: Hashes) -> Iterator[tuple[int, Positions]]:
        """Which parts to ask, by the hashes that assign objects to ranges; and of which objects."""
        ranges = ranges_of(owners, len(self.parts))
        return ((n, np.flatnonzero(ranges == n)) for n in np.unique(ranges).tolist())

    def _marked(self, images: Mask, shards: Mask) -> Iterator[tuple[Any, Mask, Mask]]:
        """Of each part, what was marked of its rows and shards."""
        bounds = zip(pairwise(self.row_ends), pairwise(self.shard_ends), strict=True)
        for part, (rows, of_shards) in zip(self.parts, bounds, strict=True):
            yield part, images[slice(*rows)], shards[slice(*of_shards)]

    def _sorted(self, sent: Iterator[Any]) -> HashIndex:
        found = [index.keys for index in self._answers(list(sent))]
        return HashIndex(np.sort(np.concatenate(found)))

    def _answers(self, sent: list[Any]) -> list[Any]:
        return _answers(sent, self.parts, self.part_bytes)


_LEDGERS: WeakSet[SpreadLedger] = WeakSet()
"""Those whose parts have memory of the nodes: of earlier runs, and of an open one beside them."""


def _parts_for(rows: int) -> int:
    return min(max(ceil(rows / ROWS_PER_PART), 1), MOST_PARTS)


def _nothing(objects: int, codes: int) -> Matches:
    """What is known of so many objects before anybody is asked."""
    return Matches(
        known=np.zeros(objects, bool),
        same=np.zeros(objects, bool),
        at=np.zeros(objects, np.intp),
        rows=np.zeros(objects, np.int64),
        failures=np.zeros((objects, codes), np.int64),
    )


def _answers(sent: list[Any], parts: Sequence[Any], part_bytes: int) -> list[Any]:
    """
    Raises:
        RunError: a part is lost, and cannot be loaded again.
        UsageError: the nodes have no room for so many parts.
    """
    try:
        while True:
            with suppress(GetTimeoutError):
                return list(ray.get(sent, timeout=LOOK_SECONDS))
            _check_room(parts, part_bytes)
    except RayTaskError as error:
        raise cause_of(error) from None
    except RayActorError as error:
        raise RunError(
            f"a part of the ledger is lost: {one_line(error)}; start the same command again"
        ) from error


def _check_room(parts: Sequence[Any], part_bytes: int) -> None:
    """
    Raises:
        UsageError: the nodes have none for so many parts, and there will be no others.
    """
    taken = sum(len(one.parts) * one.part_bytes for one in _LEDGERS if one.parts is not parts)
    room = sum(int(node.memory // part_bytes) for node in nodes()) - ceil(taken / part_bytes)
    if room < len(parts) and not can_grow():
        raise UsageError(
            f"the ledger of earlier rows takes {len(parts)} actors with {part_bytes / 2**30:.2g} "
            f"GiB of memory each, and the nodes have room for {max(room, 0)}; start more nodes, or "
            "larger ones"
        )
