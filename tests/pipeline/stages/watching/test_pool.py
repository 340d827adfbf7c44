"""How many actors there are, as Ray Data counts them."""

import pickle
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import cloudpickle

from pipeline.stages.watching.pool import Pool


def stage(running: int, pending: int) -> SimpleNamespace:
    info = SimpleNamespace(running=running, pending=pending, restarting=0)
    return SimpleNamespace(get_actor_info=lambda: info)


def test_what_was_reached_is_remembered() -> None:
    pool = Pool()
    watch = pool.watch()()
    for running, pending in ((1, 0), (2, 3), (5, 0), (1, 0)):
        executor: Any = SimpleNamespace(_topology=[stage(0, 0), stage(running, pending)])
        watch.on_execution_step(executor)
    assert pool == Pool(running=1, starting=0, reached=5)


def test_actors_of_an_execution_that_fails_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else refers to them; those of one that succeeds are Ray Data's."""
    ended: list[str] = []
    monkeypatch.setattr(ray, "kill", ended.append)
    actors = SimpleNamespace(_running_actors={"a": 1})
    executor: Any = SimpleNamespace(_topology=[stage(0, 0), stage(1, 0)])
    executor._topology[1]._actor_pool = actors
    succeeds, fails = (Pool().watch()() for _ in range(2))
    for watch in (succeeds, fails):
        watch.before_execution_starts(executor)
    actors._running_actors["b"] = 2
    fails.on_execution_step(executor)
    actors._running_actors.clear()  # as Ray Data has it before it calls, or in its last step
    fails.on_execution_step(executor)
    succeeds.after_execution_succeeds(executor)
    assert ended == []
    fails.after_execution_fails(executor, ValueError())
    assert ended == ["a", "b"]


def test_a_watch_travels_with_the_options_of_a_dataset() -> None:
    watch = Pool().watch()
    assert pickle.loads(cloudpickle.dumps(watch)).pool == Pool()


def test_actors_that_wait_for_long_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[int] = []
    clock = iter([0, 0, 40, 40, 60, 71, 71, 71])
    monkeypatch.setattr(time, "monotonic", lambda: 1000 + next(clock))
    pool = Pool(patience=30, check=wanted.append)
    pool.count(2, 0, 1)  # at 0 s
    pool.count(3, 0, 0)
    pool.count(2, 0, 1)  # at 40 s
    pool.count(2, 0, 1)  # at 60 s
    assert not wanted
    pool.count(2, 0, 1)  # at 71 s
    pool.count(2, 0, 2)  # anew
    assert wanted == [3]


@pytest.mark.parametrize(
    ("pool", "nodes", "told"),
    [
        (Pool(running=3), 0, "3 of at most 8 replicas"),
        (Pool(starting=1), 0, "0 of at most 8 replicas, 1 more start"),
        (
            Pool(running=1, starting=2),
            2,
            "1 of at most 8 replicas, 2 more start, waiting for 2 nodes of the autoscaler's",
        ),
    ],
)
def test_what_is_told(pool: Pool, nodes: int, told: str) -> None:
    assert pool.told(8, nodes) == told
