"""The closing of a made-up run, in this process or in one to be killed.

python -m tests.support.outputs.closings OUT [ONCE]    closes the run there, on the Ray of
                                                       RAY_ADDRESS or one of its own, and stalls
                                                       before the last of its files; only once, if
                                                       a file is named that remembers it
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.spec import ComputeSpec
from pipeline.output.open_run import OpenRun
from pipeline.runs.closing import Account, close_run
from pipeline.runs.computing.execution import ROWS_WORTH_TASKS, tasks_for
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


@dataclass(frozen=True)
class Stall:
    """Waits before the last file of the run is written."""

    once: Path | None = None
    """If given, where it is written which process has waited; no other one does."""

    def __call__(self, table: pa.Table) -> pa.Table:
        is_last = pc.max(table["uri"]).as_py() >= f"/in/{2 * ROWS_PER_FILE:06d}"
        if is_last and not (self.once and self.once.exists()):
            if self.once:
                self.once.write_text(str(os.getpid()))
            time.sleep(STALL_SECONDS)
        return table


def main() -> None:
    """Close the run, if it is not killed."""
    output, *once = sys.argv[1:]
    run = OpenRun.find(Store(output))
    assert run is not None
    run.take_up(full=False)
    stall = Stall(Path(once[0]) if once else None)
    with tasks_for(ROWS_WORTH_TASKS, ComputeSpec(num_gpus=0)) as tasks:
        close_run(run, (), account(complete=stall), tasks)


if __name__ == "__main__":
    main()
