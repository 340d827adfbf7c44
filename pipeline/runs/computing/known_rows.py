"""The ledger of a run: in this process, or too large for it, and spread over the cluster."""

from __future__ import annotations

import logging

import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.output.ledger.hashes import USUAL_SHARDS, ShardNames
from pipeline.output.ledger.history import History
from pipeline.output.ledger.known import Known
from pipeline.output.ledger.ledger import Ledger
from pipeline.stages.cluster.ray_session import connect
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.stages.rows.spread_ledger import SpreadLedger
from pipeline.storage.filesystems import STORAGE_ERRORS, WorkerEnvironment

ROWS_IN_THIS_PROCESS = 20_000_000
"""They take it some 3 GiB for a moment, and 1 GiB afterwards."""

log = logging.getLogger(__name__)


def known_rows(
    history: History, names: ShardNames, compute: ComputeSpec, *, may_write: bool, debug: bool
) -> Known:
    """The rows of earlier runs, so that a listing can be compared with them.

    Args:
        may_write: whether the output is ours to write what it lacks, the hashes of rows of earlier
            versions.

    Raises:
        UsageError: the cluster cannot be reached, or a file of a closed run is gone.
        RunError: Ray did not start, or lost a part of the ledger.
    """
    if history.rows <= ROWS_IN_THIS_PROCESS:
        return history.ledger(names)
    if names != USUAL_SHARDS:
        log.warning("comparing with %d rows in this process: %s", history.rows, _ODD_SHARDS)
        return history.ledger(names)
    if not (may_write or history.has_hashes):
        log.warning("comparing with %d rows in this process: %s", history.rows, _NO_HASHES)
        return history.ledger(names)
    connect(compute, debug=debug)
    environment = WorkerEnvironment.capture()
    if not history.has_hashes:
        history = history.keep(RayTasks(environment).map)
    return SpreadLedger.load(history, names, environment)


def replaced_rows(
    history: History, names: ShardNames, compute: ComputeSpec, *, may_write: bool, debug: bool
) -> Known:
    """The rows that a full run replaces. It must not fail for them: it is what repairs an output
    whose files are gone or broken."""
    try:
        return known_rows(history, names, compute, may_write=may_write, debug=debug)
    except (UsageError, pa.ArrowException, *STORAGE_ERRORS) as error:
        log.warning("images that vanished get no row, for earlier rows are lost: %s", error)
        return Ledger.from_tables([], names)


_ODD_SHARDS = "members of shards with unusual endings are told by their names alone"
_NO_HASHES = "an earlier version wrote them, and no run of this one has read them yet"
