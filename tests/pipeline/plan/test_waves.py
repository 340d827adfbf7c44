"""Work in waves: what is handed out when, and whole runs whose listing goes on meanwhile."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.contract.errors import ExitCode, RunError, UsageError
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.output.open_run import OpenRun
from pipeline.plan import waves as module
from pipeline.plan.diff import Plan, Work
from pipeline.plan.waves import waves
from pipeline.runs.computing import listing as of_run
from pipeline.runs.computing.execution import PlannedRun
from pipeline.runs.run import run
from pipeline.sources.inventory import inventory
from pipeline.storage.read_ahead import Ahead
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images
from tests.support.inputs.world import Row, World, listing_of
from tests.support.outputs.found import published_rows

LONG = 60.0


@dataclass
class Bucket:
    """A listing of single tables, each handed out when its turn is opened."""

    tables: list[pa.Table]
    turns: list[threading.Event] = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.turns = [threading.Event() for _ in range(len(self.tables) + 1)]

    def __iter__(self) -> Iterator[pa.Table]:
        for turn, table in zip(self.turns, self.tables, strict=False):
            assert turn.wait(LONG)
            yield table
        assert self.turns[-1].wait(LONG)
        if self.error:
            raise self.error

    def open(self, turns: int) -> None:
        for turn in self.turns[:turns]:
            turn.set()


def names(count: int) -> list[str]:
    return [f"{number:02d}.jpg" for number in range(count)]


def uris(work: Work) -> list[str]:
    return [uri for table in work.images for uri in table["uri"].to_pylist()]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST_WAVE", 7)


@pytest.fixture
def bucket() -> Bucket:
    """28 images in four tables."""
    return Bucket(list(listing_of(dict.fromkeys(names(28), "A"), rows_per_table=7)))


def fresh_plan(store: Store, world: World | None = None) -> tuple[Plan, OpenRun]:
    world = world or World()
    open_run = world.open_run(store)
    return Plan(world.ledger(), open_run), open_run


def test_work_is_handed_out_while_the_listing_goes_on(bucket: Bucket, local_store: Store) -> None:
    bucket.open(2)
    with Ahead(bucket, 10) as listing:
        listing.wait_for_end(0.5)
        plan, open_run = fresh_plan(local_store)
        found = waves(listing, plan, open_run)
        assert uris(next(found)) == names(14)
        complete = [plan.is_complete]
        bucket.open(5)
        assert uris(next(found)) == names(28)[14:]
        assert [*complete, plan.is_complete] == [False, True]
        assert next(found, None) is None


def test_a_listing_that_has_ended_is_one_wave(bucket: Bucket, local_store: Store) -> None:
    bucket.open(5)
    with Ahead(bucket, 10) as listing:
        listing.wait_for_end(LONG)
        plan, open_run = fresh_plan(local_store)
        assert [uris(work) for work in waves(listing, plan, open_run)] == [names(28)]


def test_what_is_there_is_compared_at_once(
    bucket: Bucket, local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.open(5)
    compared: list[int] = []
    with Ahead(bucket, 10) as listing:
        listing.wait_for_end(LONG)
        plan, open_run = fresh_plan(local_store)
        add = plan.add

        def counted(table: pa.Table) -> Work:
            compared.append(len(table))
            return add(table)

        monkeypatch.setattr(plan, "add", counted)
        assert [uris(work) for work in waves(listing, plan, open_run)] == [names(28)]
    assert compared == [28]


def test_a_wave_is_bounded(
    bucket: Bucket, local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_WAVE", 14)
    bucket.open(5)
    with Ahead(bucket, 10) as listing:
        listing.wait_for_end(LONG)
        plan, open_run = fresh_plan(local_store)
        sizes = [work.num_images for work in waves(listing, plan, open_run)]
    assert sizes == [14, 14, 0]


def test_what_has_stale_rows_waits_for_the_last_wave(bucket: Bucket, local_store: Store) -> None:
    world = World(parts=[[Row("00.jpg", "B"), Row("01.jpg", "A"), Row("gone.jpg", "A")]])
    bucket.open(2)
    with Ahead(bucket, 10) as listing:
        listing.wait_for_end(0.5)
        plan, open_run = fresh_plan(local_store, world)
        found = waves(listing, plan, open_run)
        assert uris(next(found)) == names(14)[2:]
        assert sum(part.rows for part in open_run.parts) == 3
        bucket.open(5)
        assert uris(next(found)) == [*names(28)[14:], "00.jpg"]
        assert sum(part.rows for part in open_run.parts) == 1


def test_what_cannot_be_listed_is_wrong_usage_only_before_the_first_wave(
    bucket: Bucket, local_store: Store
) -> None:
    bucket.error = UsageError("access denied")
    bucket.open(2)
    with Ahead(bucket, 10) as listing:
        listing.wait_for_end(0.5)
        plan, open_run = fresh_plan(local_store)
        found = waves(listing, plan, open_run)
        next(found)
        bucket.open(5)
        with pytest.raises(RunError, match="broke off: access denied; start the same command"):
            next(found)
    bucket.tables = []
    with Ahead(bucket, 10) as listing:
        plan, open_run = fresh_plan(local_store)
        with pytest.raises(UsageError, match="access denied"):
            next(waves(listing, plan, open_run))


@pytest.mark.usefixtures("ray_local")
def test_run_in_waves(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing breaks off after the first wave; the next start goes on and repeats nothing."""
    write_images(tmp_path / "in", 20)
    spec = RunSpec(
        inputs=InputSpec(uris=(str(tmp_path / "in"),)),
        model=ModelSpec(source=str(checkpoint)),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=2),
    )
    executed: list[int] = []
    remote = Bucket([])
    stream_one = PlannedRun._stream

    def stream(task: Any, number: int, work: Work, stages: Any) -> Any:
        executed.append(work.num_images)
        committed = stream_one(task, number, work, stages)
        remote.open(99)  # only now the listing goes on
        return committed

    def listed(*args: Any, **options: Any) -> Iterator[pa.Table]:
        yield from remote

    table = next(inventory(spec.inputs))
    monkeypatch.setattr(of_run, "inventory", listed)
    monkeypatch.setattr(of_run, "HEAD_START_SECONDS", 0.5)
    monkeypatch.setattr(PlannedRun, "_stream", stream)

    remote = Bucket([table.slice(0, 8)], error=OSError("storage is away"))
    remote.open(1)
    with pytest.raises(RunError, match="storage is away; start the same command again"):
        run(spec)
    assert executed == [8]

    remote = Bucket([table.slice(0, 15), table.slice(15)])
    remote.open(1)
    result = run(spec)
    assert executed == [8, 7, 5]
    assert result.exit_code is ExitCode.OK
    assert result.counts == Counts(listed=20, ok=20, failed=0, skipped=0)
    assert result.manifest.plan["finished"] == 8
    rows = [str(row["uri"]) for row in published_rows(tmp_path / "out")]
    assert sorted(rows) == sorted(table["uri"].to_pylist())
