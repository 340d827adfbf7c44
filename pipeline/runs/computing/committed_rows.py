"""What an unfinished run has committed, for the attempt that continues it: few rows are read by
this process, many in tasks; and those that are too many for one process stay on the cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.output.ledger.committed import hashed_rows, ledger_of, portions
from pipeline.output.ledger.hashes import HashIndex, ShardNames
from pipeline.output.ledger.known import Known
from pipeline.output.merging.dropping import drop_rows
from pipeline.output.open_run import OpenRun
from pipeline.runs.computing.known_rows import ROWS_IN_THIS_PROCESS
from pipeline.stages.cluster.address import cluster_address
from pipeline.stages.cluster.ray_session import join
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.stages.rows.spread_ledger import ROWS_PER_PART, SpreadLedger
from pipeline.stages.watching.reach import leaving_out
from pipeline.storage.filesystems import WorkerEnvironment

log = logging.getLogger(__name__)

ROWS_WORTH_TASKS = 1_000_000
"""Fewer are read in some three seconds, while Ray would still start its workers."""


@dataclass(frozen=True)
class CommittedRows:
    """Reads the rows of open runs, and drops them, where it takes least.

    Raises:
        UsageError: the cluster cannot be reached, or has no room for them.
        RunError: Ray did not start, or lost what it held, or does not reach the output.
    """

    compute: ComputeSpec
    debug: bool = False
    check: Callable[[], None] = lambda: None
    """Raises an error when the run has become another process's."""

    def ledger(self, open_run: OpenRun, names: ShardNames) -> Known:
        """An index over the rows that a run has."""
        if open_run.rows < ROWS_WORTH_TASKS:
            return open_run.ledger(names)
        with self._tasks(open_run) as tasks:
            if open_run.rows > _rows_held_here():
                try:
                    return SpreadLedger.gather(open_run, names, tasks)
                except UsageError as no_room:
                    if open_run.rows > ROWS_IN_THIS_PROCESS:
                        raise
                    log.warning("%s; for now, this process holds its rows", no_room)
            some = list(portions((part.name, part.rows) for part in open_run.parts))
            read = partial(hashed_rows, store=open_run.store, names=names)
            return ledger_of(names, *tasks.map(read, some))

    def drop(self, open_run: OpenRun, stale: HashIndex) -> None:
        """As ``drop_rows``."""
        if open_run.rows < ROWS_WORTH_TASKS or not len(stale.keys):
            drop_rows(open_run, stale, check=self.check)
            return
        with self._tasks(open_run) as tasks:
            drop_rows(open_run, stale, tasks, self.check)

    @contextmanager
    def _tasks(self, open_run: OpenRun) -> Iterator[RayTasks]:
        join(self.compute, debug=self.debug)
        with leaving_out():
            yield RayTasks(WorkerEnvironment.capture(), open_run.store.uri)


def _rows_held_here() -> int:
    """A machine of one's own has no more memory for actors than for this process."""
    return ROWS_IN_THIS_PROCESS if cluster_address() is None else ROWS_PER_PART
