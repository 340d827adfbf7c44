"""A ledger in many parts says what the ledger in one process says, which brute force holds."""

import gc
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import ray

from pipeline.contract.errors import UsageError
from pipeline.output.ledger import committed, rolling
from pipeline.output.ledger.hashes import ShardNames
from pipeline.output.ledger.history import History
from pipeline.output.ledger.known import Known
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan, Work
from pipeline.stages.cluster.tasks import RayTasks
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
    """Of most data files there are hashes, a part has few rows, and so has what a task reads."""
    monkeypatch.setattr(rolling, "SMALL_FILE_ROWS", 15)
    monkeypatch.setattr(committed, "PORTION_ROWS", 13)
    monkeypatch.setattr(spread_ledger, "ROWS_PER_PART", 9)


def history_of(world: World, store: Store) -> History:
    for number, rows in enumerate(world.runs):
        closed(store, f"{number:08d}", rows)
    return History.load(store)


def spread(history: History) -> SpreadLedger:
    return SpreadLedger.load(history, SHARD_NAMES, WorkerEnvironment.capture())


class Here:
    """Tasks without Ray."""

    environment = WorkerEnvironment.capture()

    def spread(
        self,
        function: Callable[[Any], tuple[Any, Sequence[Any]]],
        items: Sequence[Any],
        ranges: int,
    ) -> tuple[list[Any], list[list[Any]]]:
        found = [function(item) for item in items]
        pieces = [[some[number] for _, some in found] for number in range(ranges)]
        return [result for result, _ in found], pieces


def gathered(open_run: OpenRun, names: ShardNames) -> SpreadLedger:
    return SpreadLedger.gather(open_run, names, cast(RayTasks, Here()))


def planned(
    ledger: Known,
    world: World,
    store: Store,
    rows_of: Callable[[OpenRun, ShardNames], Known] = OpenRun.ledger,
    *,
    full: bool = False,
) -> dict[str, Any]:
    """All that a plan says."""
    retry = frozenset(["timeout"])
    plan = Plan(ledger, world.open_run(store), retry, full=full, rows_of=rows_of)
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
@pytest.mark.parametrize("is_spread", [False, True], ids=["earlier rows here", "and they, too"])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_plan_with_the_rows_of_the_open_run(
    seed: int, is_spread: bool, local_store: Store
) -> None:
    world = random_world(seed)
    history = history_of(world, local_store)
    ledger = spread(history) if is_spread else history.ledger(SHARD_NAMES)
    found = planned(ledger, world, local_store, gathered)
    assert found == planned(history.ledger(SHARD_NAMES), world, local_store)


@pytest.mark.usefixtures("without_ray")
def test_every_part_has_some(local_store: Store) -> None:
    ledger = spread(history_of(random_world(0), local_store))
    assert len(ledger.parts) > 4
    assert np.count_nonzero(np.diff(ledger.row_ends)) > 3


@pytest.mark.usefixtures("without_ray")
def test_what_another_ledger_takes_is_no_room(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of earlier runs, beside which that of an open run is started."""
    gc.collect()
    other = spread(history_of(random_world(0), local_store))
    size = other.part_bytes
    node = SimpleNamespace(memory=len(other.parts) * size)
    monkeypatch.setattr(spread_ledger, "nodes", lambda: [node])
    monkeypatch.setattr(spread_ledger, "can_grow", lambda: False)
    spread_ledger._check_room(other.parts, size)
    with pytest.raises(UsageError, match="have room for 0; "):
        spread_ledger._check_room([None], size)
    node.memory += size
    spread_ledger._check_room([None], size)


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
    world = random_world(10)
    history = history_of(world, local_store)
    expected = planned(history.ledger(SHARD_NAMES), world, local_store)
    ledger, open_run = spread(history), world.open_run(local_store)
    tasks = RayTasks(WorkerEnvironment.capture(), local_store.uri)
    staged = SpreadLedger.gather(open_run, SHARD_NAMES, tasks)
    assert len(staged.parts) > 1
    plan = Plan(ledger, open_run, frozenset(["timeout"]), rows_of=lambda *_: staged)
    tables = list(listing_of(world.listing))
    for number, table in enumerate(tables):
        if number == len(tables) // 2:
            for part in [*random.Random(0).sample(ledger.parts, 2), *staged.parts[:2]]:
                ray.kill(part, no_restart=False)
        plan.add(table)
    plan.finish()
    assert plan.counts.to_dict() == expected["counts"]
    assert plan.vanished().keys.tolist() == expected["vanished"]
    assert plan.stale().keys.tolist() == expected["stale"]
    as_read = plan.vanished(is_done=True).keys.tolist()
    assert as_read == expected["vanished, as far as shards were read"]


@pytest.mark.usefixtures("ray_local")
def test_memory_that_no_node_has_is_not_waited_for(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_ledger, "BYTES_PER_ROW", 2**50)
    monkeypatch.setattr(spread_ledger, "LOOK_SECONDS", 0.5)
    history = history_of(random_world(0), local_store)
    with pytest.raises(UsageError, match=r"takes \d+ actors with .* the nodes have room for 0; "):
        spread(history)
