"""What the log says of where a training goes on."""

import os
from unittest.mock import Mock

import pytest
import ray

from pipeline.stages.train.talk import whereabouts
from pipeline.stages.train.talk.whereabouts import Whereabouts, say_at_work


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The hosts of a cluster, whose key-value store is a dictionary."""
    values: dict[str, bytes] = {}
    hosts = {"10.0.0.1", "10.0.0.2", "10.0.0.3"}

    def put(key: str, value: bytes, *, overwrite: bool) -> None:
        assert overwrite
        values[key] = value

    monkeypatch.setattr(whereabouts, "_internal_kv_put", put)
    monkeypatch.setattr(whereabouts, "_internal_kv_get", values.get)
    monkeypatch.setattr(whereabouts, "_internal_kv_del", lambda key: values.pop(key, None))
    monkeypatch.setattr(
        ray,
        "nodes",
        lambda: [{"NodeManagerAddress": host, "Alive": host in hosts} for host in sorted(hosts)],
    )
    return hosts


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> "Begin":
    return Begin(monkeypatch)


class Begin:
    """Workers that begin, each in a new process."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch, self._processes = patch, 0

    def __call__(self, rank: int, host: str, step: int) -> None:
        self._processes += 1
        self._patch.setattr(os, "getpid", lambda: self._processes)
        self._patch.setattr(whereabouts, "get_node_ip_address", lambda: host)
        say_at_work("run", rank, step)


def test_a_line_when_all_have_begun_and_when_they_begin_again(
    alive: set[str], begin: Begin
) -> None:
    training = Whereabouts("run", 2, 80)
    assert training.news() is None
    begin(0, "10.0.0.1", 0)
    assert training.news() is None
    begin(1, "10.0.0.2", 0)
    assert training.news() == "training 80 steps on 10.0.0.1 and 10.0.0.2"
    assert training.news() is None
    begin(0, "10.0.0.1", 20)
    assert training.news() is None
    begin(1, "10.0.0.2", 20)
    assert training.news() == (
        "a worker ended; training goes on from step 20, on 10.0.0.1 and 10.0.0.2"
    )
    alive.remove("10.0.0.2")
    begin(0, "10.0.0.3", 40)
    begin(1, "10.0.0.1", 40)
    assert training.news() == (
        "the host 10.0.0.2 was lost; training goes on from step 40, on 10.0.0.3 and 10.0.0.1"
    )


def test_what_could_not_be_asked_is_asked_again(
    alive: set[str], begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Whereabouts("run", 1, 80)
    begin(0, "10.0.0.1", 0)
    assert training.news()
    begin(0, "10.0.0.2", 20)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "nodes", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            training.news()
    assert training.news() == "a worker ended; training goes on from step 20, on 10.0.0.2"


def test_the_same_command_says_where_it_goes_on(alive: set[str], begin: Begin) -> None:
    begin(0, "10.0.0.9", 0)
    training = Whereabouts("run", 1, 80)
    assert training.news() is None
    begin(0, "10.0.0.1", 60)
    assert training.news() == "training goes on from step 60 of 80, on 10.0.0.1"
