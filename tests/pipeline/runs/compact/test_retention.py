"""Runs that were replaced stay as long as somebody may read them."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.contract import layout
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import CompactSpec
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.compacting import combined, nights, rows_now
from tests.support.outputs.relabelling import CLASSES, softmax


def aged(store: Store, days: float) -> None:
    """All that has closed, closed so long ago."""
    finished = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    for name in store.list(layout.RUNS):
        if name.endswith(layout.MANIFEST):
            store.write_json(name, store.read_json(name) | {"finished": finished})


def runs_of(store: Store) -> list[str]:
    return list(store.children(layout.RUNS))


def test_runs_stay_until_nobody_may_read_them(local_store: Store) -> None:
    nights(local_store, 1)
    old = runs_of(local_store)
    aged(local_store, 100)
    first = combined(local_store, keep_days=1)
    assert first.removed == (), "a reader may have begun a moment ago"
    assert set(old) < set(runs_of(local_store))
    aged(local_store, 2)
    assert combined(local_store, keep_days=3).removed == ()
    assert combined(local_store).removed == (), "without being asked to, nothing is removed"
    before = rows_now(local_store)
    assert combined(local_store, keep_days=1).removed == tuple(old)
    assert len(runs_of(local_store)) == 1
    assert list(local_store.list(layout.DATA)) == local_store.read_json(layout.CURRENT)["files"]
    assert rows_now(local_store) == before


def test_what_a_live_run_stands_beside_is_never_removed(local_store: Store) -> None:
    nights(local_store, 2)
    aged(local_store, 100)
    first = combined(local_store).manifest
    aged(local_store, 50)
    close_run(local_store, rows_of(softmax(3, 4), CLASSES, prefix="later"), CLASSES)
    second = combined(local_store, keep_days=30)
    assert first
    assert first.run_id not in second.removed, "it was replaced just now"
    assert len(second.removed) == 4


@pytest.mark.parametrize("days", [0, 0.5, -1, float("nan")])
def test_a_retention_of_less_than_a_day_is_refused(days: float) -> None:
    with pytest.raises(UsageError, match=r"compact\.keep_days is .*; it must be 1 or more"):
        CompactSpec(output="out", keep_days=days)
