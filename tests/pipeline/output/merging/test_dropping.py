"""What is left of an open run when rows are dropped, whoever is killed meanwhile or comes late."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest

from pipeline.contract.errors import RunError
from pipeline.output.ledger import committed
from pipeline.output.ledger.hashes import HashIndex, hash_strings
from pipeline.output.merging.dropping import drop_rows
from pipeline.output.merging.tasks import InThisProcess
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.storage.parquet import read_table, write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import Row, table_of
from tests.support.processes.killed import KilledError, killed_after

PARTS = (("0", "1"), ("2", "3"), ("4",), ("5", "6", "7"))
EVERYTHING = sorted(name for names in PARTS for name in names)
STALE = {"1", "4", "6"}
LEFT = ["0", "2", "3", "5", "7"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are read in more than one portion."""
    monkeypatch.setattr(committed, "PORTION_ROWS", 4)


def begun(store: Store) -> None:
    """The first attempt."""
    run = OpenRun.begin(store, OpenRecord())
    for number, names in enumerate(PARTS):
        table = table_of([Row(name, "A") for name in names])
        write_table(store, run.part_name(number), PartFooter().spanning(table["uri"]).attach(table))


def taken_up(store: Store) -> OpenRun:
    """By a later one."""
    run = OpenRun.find(store)
    assert run is not None
    run.take_up(full=False)
    return run


def stale(names: set[str] = STALE) -> HashIndex:
    table = table_of([Row(name, "A") for name in names])
    return HashIndex(np.unique(hash_strings(table["uri"])))


def uris(run: OpenRun) -> list[str]:
    assert [len(read_table(run.store, part.name)) for part in run.parts] == [
        part.rows for part in run.parts
    ]
    return sorted(
        uri for part in run.parts for uri in read_table(run.store, part.name)["uri"].to_pylist()
    )


def test_only_parts_with_such_rows_are_written_again(store: Store) -> None:
    begun(store)
    run = taken_up(store)
    before = [part.name for part in run.parts]
    drop_rows(run, stale())
    for found in (run, taken_up(store)):
        assert uris(found) == LEFT
        assert [part.name in before for part in found.parts].count(True) == 1
    assert len(store.list(f"{run.directory}/parts")) == 3


def test_killed_after_any_step_all_rows_are_left_or_those(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[list[str]] = []
    is_killed = True
    while is_killed:
        begun(local_store)
        run = taken_up(local_store)
        with killed_after(len(outcomes), monkeypatch, local_store) as done:
            try:
                drop_rows(run, stale())
                is_killed = False
            except KilledError:
                pass
        outcomes.append(uris(taken_up(local_store)))
        assert outcomes[-1] in (EVERYTHING, LEFT), done
        run.discard()
    assert outcomes == [EVERYTHING] * 3 + [LEFT]  # two parts and the record are written


def test_killed_before_the_old_parts_are_removed(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Store, name: str) -> None:
        raise KilledError

    begun(local_store)
    run = taken_up(local_store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove_file", fail)
        with pytest.raises(KilledError):
            drop_rows(run, stale())
    assert len(local_store.list(f"{run.directory}/parts")) == 6
    assert uris(taken_up(local_store)) == LEFT


def test_the_record_of_whoever_took_the_run_over_stays(local_store: Store) -> None:
    """This attempt was held up meanwhile, for longer than its lease lasts."""

    def check() -> None:
        raise RunError("taken over")

    begun(local_store)
    run = taken_up(local_store)
    before = local_store.read_bytes(f"{run.directory}/open.json")
    with pytest.raises(RunError, match="taken over"):
        drop_rows(run, stale(), check=check)
    assert local_store.read_bytes(f"{run.directory}/open.json") == before
    assert uris(taken_up(local_store)) == EVERYTHING


A = TypeVar("A")
B = TypeVar("B")


class LateTasks(InThisProcess):
    """Of a driver that is killed while it waits for them."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        self.calls = [partial(function, item) for item in items]
        raise KilledError


def test_what_tasks_of_a_killed_attempt_still_write_belongs_to_nobody(local_store: Store) -> None:
    """Objects had changed when it listed them, and have changed back since."""
    begun(local_store)
    late = LateTasks()
    with pytest.raises(KilledError):
        drop_rows(taken_up(local_store), stale({"0", "2"}), late)
    second = taken_up(local_store)
    late.calls[0]()
    drop_rows(second, stale())
    for call in late.calls:
        with suppress(FileNotFoundError):  # parts that were written again are gone
            call()
    for run in (second, taken_up(local_store)):
        assert uris(run) == LEFT
