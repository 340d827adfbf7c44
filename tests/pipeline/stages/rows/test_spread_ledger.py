"""A ledger in many parts says what the ledger in one process says, which brute force holds."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from pipeline.contract.errors import UsageError
from pipeline.output.ledger import rolling
from pipeline.output.ledger.history import History
from pipeline.output.ledger.ledger import Known
from pipeline.plan.diff import Plan, Work
from pipeline.stages.rows import spread_ledger
from pipeline.stages.rows.spread_ledger import SpreadLedger
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.store import Store
from tests.support.inputs.world import SHARD_NAMES, World, listing_of, random_world
from tests.support.outputs.closed_runs import closed


class Actor:
    """One without Ray, which answers at once."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._made, name))


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options that Ray would be told."""
    found: list[dict[str, Any]] = []

    def remote(kind: Any) -> Any:
        start = SimpleNamespace(remote=lambda *args: Actor(kind(*args)))

        def options(**said: Any) -> Any:
            found.append(said)
            return start

        return SimpleNamespace(options=options)

    local = SimpleNamespace(remote=remote, get=lambda found, **_: found, put=lambda value: value)
    monkeypatch.setattr(spread_ledger, "ray", local)
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of most data files there are hashes, and a part has few rows."""
    monkeypatch.setattr(rolling, "SMALL_FILE_ROWS", 15)
    monkeypatch.setattr(spread_ledger, "ROWS_PER_PART", 9)


def history_of(world: World, store: Store) -> History:
    for number, rows in enumerate(world.runs):
        closed(store, f"{number:08d}", rows)
    return History.load(store)


def spread(history: History) -> SpreadLedger:
    return SpreadLedger.load(history, SHARD_NAMES, WorkerEnvironment.capture())


def planned(ledger: Known, world: World, store: Store, *, full: bool = False) -> dict[str, Any]:
    """All that a plan says."""
    retry = frozenset(["timeout"])
    plan = Plan(ledger, world.open_run(store), retry, full=full)
    work = sum((plan.add(table) for table in listing_of(world.listing)), Work())
    work += plan.finish()
    return {
        "counts": plan.counts.to_dict(),
        "work": [table.to_pylist() for table in (*work.images, *work.shards)],
        "vanished": plan.vanished().keys.tolist(),
        "vanished, as far as shards were read": plan.vanished(is_done=True).keys.tolist(),
        "stale": plan.stale().keys.tolist(),
    }


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_plan(seed: int, full: bool, local_store: Store) -> None:
    world = random_world(seed)
    history = history_of(world, local_store)
    found = planned(spread(history), world, local_store, full=full)
    assert found == planned(history.ledger(SHARD_NAMES), world, local_store, full=full)


@pytest.mark.usefixtures("without_ray")
def test_every_part_has_some(local_store: Store) -> None:
    ledger = spread(history_of(random_world(0), local_store))
    assert len(ledger.parts) > 4
    assert np.count_nonzero(np.diff(ledger.row_ends)) > 3


AWAY = {"label_selector": {"ray.io/node-id": "!in(a, b)"}}
"""From nodes that were left out."""


def test_no_part_is_on_a_node_that_was_left_out(
    without_ray: list[dict[str, Any]], local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_ledger, "elsewhere", lambda: AWAY)
    spread(history_of(random_world(0), local_store))
    assert [said.items() >= AWAY.items() for said in without_ray] == [True]


@pytest.mark.usefixtures("ray_local")
def test_parts_that_are_lost_are_loaded_again(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a listing; what was met until then is known."""
    monkeypatch.setattr(spread_ledger, "elsewhere", lambda: AWAY)  # Ray takes all options together
    world = random_world(0)
    history = history_of(world, local_store)
    expected = planned(history.ledger(SHARD_NAMES), world, local_store)
    ledger = spread(history)
    plan = Plan(ledger, world.open_run(local_store), frozenset(["timeout"]))
    tables = list(listing_of(world.listing))
    for number, table in enumerate(tables):
        if number == len(tables) // 2:
            for part in random.Random(0).sample(ledger.parts, 2):
                ray.kill(part, no_restart=False)
        plan.add(table)
    plan.finish()
    assert plan.counts.to_dict() == expected["counts"]
    assert plan.vanished().keys.tolist() == expected["vanished"]


@pytest.mark.usefixtures("ray_local")
def test_memory_that_no_node_has_is_not_waited_for(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_ledger, "BYTES_PER_ROW", 2**50)
    monkeypatch.setattr(spread_ledger, "LOOK_SECONDS", 0.5)
    history = history_of(random_world(0), local_store)
    with pytest.raises(UsageError, match=r"takes \d+ actors with .* the nodes have room for 0; "):
        spread(history)
