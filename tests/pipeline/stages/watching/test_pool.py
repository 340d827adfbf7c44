"""How many actors there are, as Ray Data counts them."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from pipeline.stages.watching.pool import Pool


def stage(running: int, pending: int) -> SimpleNamespace:
    return SimpleNamespace(get_actor_info=lambda: SimpleNamespace(running=running, pending=pending))


def test_what_was_reached_is_remembered() -> None:
    pool = Pool()
    watch = pool.watch()()
    for running, pending in ((1, 0), (2, 3), (5, 0), (1, 0)):
        executor: Any = SimpleNamespace(_topology=[stage(0, 0), stage(running, pending)])
        watch.on_execution_step(executor)
    assert pool == Pool(running=1, starting=0, reached=5)


def test_a_watch_travels_with_the_options_of_a_dataset() -> None:
    watch = Pool().watch()
    assert pickle.loads(cloudpickle.dumps(watch)).pool == Pool()


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
