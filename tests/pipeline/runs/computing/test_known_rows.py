"""Where the ledger of a run is: here, or spread over a cluster."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import layout
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec, InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.output.ledger import rolling
from pipeline.output.ledger.hashes import USUAL_SHARDS, ShardNames
from pipeline.output.ledger.history import History
from pipeline.output.ledger.known import Known
from pipeline.output.ledger.ledger import Ledger
from pipeline.runs.computing import known_rows as module
from pipeline.runs.computing.known_rows import known_rows, replaced_rows
from pipeline.runs.run import forecast, run
from pipeline.stages.rows import spread_ledger
from pipeline.stages.rows.spread_ledger import SpreadLedger
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images
from tests.support.inputs.world import Row
from tests.support.outputs.closed_runs import closed

ROWS = [Row(f"s3://b/{n}.jpg", "A") for n in range(40)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows are too many for this process, and a part holds as many."""
    monkeypatch.setattr(module, "ROWS_IN_THIS_PROCESS", 10)
    monkeypatch.setattr(rolling, "SMALL_FILE_ROWS", 5)
    monkeypatch.setattr(spread_ledger, "ROWS_PER_PART", 10)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> list[History]:
    """The histories that were spread over a cluster."""
    found: list[History] = []

    def load(history: History, names: ShardNames, environment: object) -> Ledger:
        assert history.has_hashes
        found.append(history)
        return history.ledger(names)

    monkeypatch.setattr(module, "connect", lambda *_, **__: None)
    monkeypatch.setattr(SpreadLedger, "load", load)
    monkeypatch.setattr(module, "RayTasks", lambda _: type("Here", (), {"map": map}))
    return found


def rows_of(store: Store, names: ShardNames = USUAL_SHARDS, *, may_write: bool = True) -> Known:
    return known_rows(History.load(store), names, ComputeSpec(), may_write=may_write, debug=False)


def test_few_rows_are_here(local_store: Store, spread: list[History]) -> None:
    closed(local_store, "1", ROWS[:10])
    assert rows_of(local_store).sizes == (10, 0)
    assert not spread


def test_many_are_spread(local_store: Store, spread: list[History]) -> None:
    closed(local_store, "1", ROWS)
    assert rows_of(local_store, may_write=False).sizes == (40, 0)
    assert len(spread) == 1


def test_rows_of_an_earlier_version_get_their_hashes_from_a_run(
    local_store: Store, spread: list[History], caplog: pytest.LogCaptureFixture
) -> None:
    closed(local_store, "1", ROWS)
    local_store.remove(layout.HISTORY)
    assert rows_of(local_store, may_write=False).sizes == (40, 0)
    assert "in this process: an earlier version wrote them" in caplog.text
    assert not spread
    assert not local_store.list(layout.HISTORY)
    assert rows_of(local_store).sizes == (40, 0)
    assert len(spread) == 1
    assert History.load(local_store).has_hashes


def test_members_of_odd_shards_need_names(
    local_store: Store, spread: list[History], caplog: pytest.LogCaptureFixture
) -> None:
    closed(local_store, "1", [replace(row, uri=f"s3://b/odd#{row.uri}") for row in ROWS])
    names = ShardNames(USUAL_SHARDS.suffixes, frozenset(["s3://b/odd"]))
    assert rows_of(local_store, names).sizes == (40, 1)
    assert "unusual endings" in caplog.text
    assert not spread


def test_a_full_run_does_without_rows_that_are_lost(local_store: Store) -> None:
    closed(local_store, "1", ROWS[:8])
    local_store.remove(layout.DATA)
    history = History.load(local_store)
    how: dict[str, Any] = {"may_write": True, "debug": False}
    with pytest.raises(UsageError, match="is gone"):
        known_rows(history, USUAL_SHARDS, ComputeSpec(), **how)
    assert replaced_rows(history, USUAL_SHARDS, ComputeSpec(), **how).sizes == (0, 0)


@pytest.mark.usefixtures("ray_local")
def test_a_night_with_a_ledger_on_the_cluster(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "in", 24)
    spec = RunSpec(
        inputs=InputSpec(uris=(str(tmp_path / "in"),)),
        model=ModelSpec(source=str(checkpoint)),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=2),
        compute=ComputeSpec(num_actors=1),
    )
    run(spec)
    loaded: list[SpreadLedger] = []
    load: Callable[..., SpreadLedger] = SpreadLedger.load

    def noted(*args: Any) -> SpreadLedger:
        loaded.append(load(*args))
        return loaded[-1]

    monkeypatch.setattr(SpreadLedger, "load", noted)
    images[0].unlink()
    images[1].write_bytes(images[2].read_bytes())
    expected = {"changed": 1, "unchanged": 22, "vanished": 1}
    planned = forecast(spec).plan.counts.to_dict()
    assert {name: planned[name] for name in expected} == expected
    night = run(spec)
    assert (night.counts.listed, night.counts.ok, night.counts.skipped) == (23, 1, 22)
    assert night.manifest.vanished == (str(images[0]),)
    assert [len(ledger.parts) for ledger in loaded] == [3, 3]
