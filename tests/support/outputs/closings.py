"""The closing of a made-up run, in this process or in one to be killed.

python -m tests.support.outputs.closings OUT     closes the run there, on a Ray of its own, and
                                                 stalls before the last of its files
"""

import sys
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.spec import ComputeSpec
from pipeline.output.open_run import OpenRun
from pipeline.runs.closing import Account, close_run
from pipeline.stages.cluster.ray_session import ray_session
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import spread_run

ROWS, ROWS_PER_FILE = 300, 120
STALL_SECONDS = 300


def made_up_run(store: Store, overtaking: int = 25) -> OpenRun:
    """Of 30 parts and, once it is closed, 3 files."""
    return spread_run(store, ROWS, 10, overtaking)


def account(**changes: Any) -> Account:
    """Of such a run."""
    known: dict[str, Any] = {
        "expected": ROWS,
        "skipped": 0,
        "model": Provenance(model="m", weights_sha256="0" * 64, fingerprint="f00d"),
        "identity": Identity(scores="softmax", top_k=2),
        "classes": ["cat", "ü"],
        "spec": {},
        "review": 20,
        "rows_per_file": ROWS_PER_FILE,
    }
    return Account(**(known | changes))


def stall(table: pa.Table) -> pa.Table:
    """Wait before the last file of the run is written."""
    if pc.max(table["uri"]).as_py() >= f"/in/{2 * ROWS_PER_FILE:06d}":
        time.sleep(STALL_SECONDS)
    return table


def main() -> None:
    """Close the run, if it is not killed."""
    run = OpenRun.find(Store(sys.argv[1]))
    assert run is not None
    run.take_up(full=False)
    with ray_session(ComputeSpec(num_gpus=0)):
        close_run(run, (), account(complete=stall), RayTasks(WorkerEnvironment.capture()))


if __name__ == "__main__":
    main()
