"""A run that tasks close is the run that the driver alone would have closed."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.contract import layout
from pipeline.contract.errors import RunError
from pipeline.contract.manifest import Manifest
from pipeline.contract.spec import ComputeSpec
from pipeline.output.merging.merge import HERE
from pipeline.output.merging.tasks import Tasks
from pipeline.output.open_run import OpenRun
from pipeline.output.publish import is_closed
from pipeline.runs.closing import close_run
from pipeline.runs.computing import execution
from pipeline.runs.computing.execution import ROWS_WORTH_TASKS, tasks_for
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.commands import REPOSITORY
from tests.support.outputs.closings import ROWS, account, made_up_run
from tests.support.outputs.open_runs import commit, result_rows
from tests.support.processes.process import start, stop
from tests.support.processes.victims import kill, wait_until


def close(store: Store, tasks: Tasks, **changes: Any) -> Manifest:
    return close_run(made_up_run(store), (), account(**changes), tasks)


def tables(store: Store, manifest: Manifest) -> list[pa.Table]:
    """Without their metadata, in which the ID of the run stands."""
    names = [*manifest.file_names, f"runs/{manifest.run_id}/review.parquet"]
    return [read_table(store, name).replace_schema_metadata(None) for name in names]


@dataclass
class DyingOnce:
    """The first process that calls it ends without a word."""

    marker: Path

    def __call__(self, table: pa.Table) -> pa.Table:
        if not self.marker.exists():
            self.marker.touch()
            os._exit(1)
        return table


def full_disk(table: pa.Table) -> pa.Table:
    raise OSError(28, "No space left on device")


def lacking_rows(table: pa.Table) -> pa.Table:
    raise RunError("3 images were to be copied from rows that are gone")


@pytest.mark.usefixtures("ray_local")
class TestOnRay:
    @pytest.fixture
    def tasks(self) -> RayTasks:
        return RayTasks(WorkerEnvironment.capture())

    def test_the_same_files_and_figures(self, tmp_path: Path, tasks: RayTasks) -> None:
        here, there = Store(str(tmp_path / "here")), Store(str(tmp_path / "there"))
        alone, together = close(here, HERE), close(there, tasks)
        assert tables(here, alone) == tables(there, together)
        assert [file.rows for file in together.files] == [120, 120, 60]
        for name in ("counts", "labels", "failures", "summary", "drift"):
            assert getattr(alone, name) == getattr(together, name), name
        assert together.summary.embedding is not None

    def test_a_process_that_dies_is_replaced(self, local_store: Store, tasks: RayTasks) -> None:
        dying = DyingOnce(Path(local_store.path()).parent / "died")
        manifest = close(local_store, tasks, complete=dying)
        assert dying.marker.exists()
        assert manifest.counts.computed == ROWS

    def test_errors_are_those_of_the_driver_alone(
        self, local_store: Store, tasks: RayTasks
    ) -> None:
        full = f"{local_store.uri} is full, make room there ([Errno 28] No space left on device)"
        for fault, kind in ((full_disk, OSError), (lacking_rows, RunError)):
            for where in (HERE, tasks):
                with pytest.raises(kind) as error:
                    close(local_store, where, complete=fault)
                assert type(error.value) is kind
                assert str(error.value) in (
                    f"[Errno 28] {full}",
                    "3 images were to be copied from rows that are gone",
                )

    def test_a_row_in_two_files_is_found(self, local_store: Store, tasks: RayTasks) -> None:
        run = made_up_run(local_store, overtaking=10_000)
        commit(run, result_rows(["/in/000000.jpg"]))
        with pytest.raises(RunError, match="300 rows expected, 301 found, 1 of them repeated"):
            close_run(run, (), account(), tasks)


class TestWhere:
    def test_a_small_run_stays_in_the_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(execution, "connect", lambda *_, **__: pytest.fail("started Ray"))
        with tasks_for(ROWS_WORTH_TASKS - 1, ComputeSpec()) as tasks:
            assert tasks is HERE

    def test_a_large_one_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(execution, "connect", lambda *_, **__: None)
        with tasks_for(ROWS_WORTH_TASKS, ComputeSpec()) as tasks:
            assert isinstance(tasks, RayTasks)


@pytest.mark.ray
def test_killed_in_mid_close(local_store: Store, tmp_path: Path) -> None:
    """Driver and workers, when some of the files are merged: the next start closes the run."""
    begun = made_up_run(local_store)
    module = "tests.support.outputs.closings"
    command = [sys.executable, "-m", module, local_store.uri]
    process = start(command, log=tmp_path / "log", env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    try:
        merged = f"{layout.publish_dir(begun.run_id)}/data"
        wait_until(lambda: len(local_store.list(merged)) == 2, "merged files")
        kill(process.pid)
    finally:
        stop(process)
    assert not local_store.list("data")
    run = OpenRun.find(local_store)
    assert run is not None
    assert not is_closed(run)
    run.take_up(full=False)
    manifest = close_run(run, (), account())
    uris = [uri for name in manifest.file_names
            for uri in read_table(local_store, name)["uri"].to_pylist()]  # fmt: skip
    assert uris == [f"/in/{number:06d}.jpg" for number in range(ROWS)]
    assert manifest.attempts == 3
    assert not local_store.list("_open")
