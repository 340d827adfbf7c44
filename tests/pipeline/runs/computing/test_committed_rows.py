"""Where the rows of an unfinished run are read, and where they are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.output.ledger import committed
from pipeline.output.merging.tasks import InThisProcess
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan
from pipeline.runs.computing import committed_rows as module
from pipeline.runs.computing.committed_rows import CommittedRows
from pipeline.stages.rows.spread_ledger import SpreadLedger
from pipeline.storage.store import Store
from tests.support.inputs.world import SHARD_NAMES, Row, World, listing_of

ROWS = [Row(f"s3://b/{n:02d}.jpg", "A") for n in range(24)]
WORLD = World(parts=[ROWS[start : start + 4] for start in range(0, 24, 4)])


class Noted(InThisProcess):
    """Tasks without Ray; notes how many it was given."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def map(self, function: Callable[[Any], Any], items: Any) -> list[Any]:
        self.calls.append(len(items))
        return super().map(function, items)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted()

    @contextmanager
    def connected(self: CommittedRows, open_run: OpenRun) -> Iterator[Noted]:
        yield noted

    monkeypatch.setattr(CommittedRows, "_tasks", connected)
    monkeypatch.setattr(committed, "PORTION_ROWS", 8)
    return noted


def planned(open_run: OpenRun) -> Plan:
    """All are listed, one of them in another version."""
    committed_rows = CommittedRows(ComputeSpec())
    plan = Plan(World().ledger(), open_run, rows_of=committed_rows.ledger)
    plan.survey(listing_of({row.uri: "A" for row in ROWS} | {ROWS[5].uri: "B"}))
    committed_rows.drop(open_run, plan.stale())
    return plan


@pytest.mark.parametrize(("threshold", "calls"), [(25, []), (24, [3, 3])], ids=["here", "in tasks"])
def test_many_rows_are_read_and_dropped_in_tasks(
    threshold: int,
    calls: list[int],
    tasks: Noted,
    local_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ROWS_WORTH_TASKS", threshold)
    open_run = WORLD.open_run(local_store)
    plan = planned(open_run)
    assert (plan.counts.finished, plan.counts.new) == (23, 1)
    assert open_run.rows == 23
    assert tasks.calls == calls


@pytest.mark.parametrize(
    ("address", "here", "is_held_there"),
    [(None, 23, True), (None, 24, False), ("head:6379", 24, True)],
    ids=["too many", "as many as fit", "more than an actor's"],
)
def test_many_stay_on_a_cluster(
    address: str | None,
    here: int,
    is_held_there: bool,
    tasks: Noted,
    local_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[object] = []

    def gather(open_run: OpenRun, names: object, tasks: object) -> object:
        given.append(tasks)
        return open_run.ledger(SHARD_NAMES)

    monkeypatch.setattr(module, "ROWS_WORTH_TASKS", 10)
    monkeypatch.setattr(module, "ROWS_IN_THIS_PROCESS", here)
    monkeypatch.setattr(module, "ROWS_PER_PART", 20)
    monkeypatch.setattr(module, "cluster_address", lambda: address)
    monkeypatch.setattr(SpreadLedger, "gather", gather)
    assert planned(WORLD.open_run(local_store)).counts.finished == 23
    assert given == [tasks] * is_held_there


@pytest.mark.usefixtures("tasks")
def test_where_a_cluster_has_no_room_few_enough_are_held_here(
    local_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gather(*args: object) -> object:
        raise UsageError("the nodes have room for 0")

    monkeypatch.setattr(module, "ROWS_WORTH_TASKS", 10)
    monkeypatch.setattr(module, "ROWS_PER_PART", 20)
    monkeypatch.setattr(module, "cluster_address", lambda: "head:6379")
    monkeypatch.setattr(SpreadLedger, "gather", gather)
    assert planned(WORLD.open_run(local_store)).counts.finished == 23
    assert "room for 0; for now, this process holds its rows" in caplog.text
    monkeypatch.setattr(module, "ROWS_IN_THIS_PROCESS", 20)
    with pytest.raises(UsageError, match="room for 0"):
        planned(WORLD.open_run(local_store))
