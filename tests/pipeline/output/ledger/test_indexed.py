"""Hashes of large data files: as good as the files, by ranges, or not used at all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract import layout
from pipeline.contract.schema import vanished_rows
from pipeline.contract.spec import InputSpec
from pipeline.output.ledger import indexed, rolling
from pipeline.output.ledger.hashes import (
    ALL,
    HASHED,
    USUAL_SHARDS,
    HashIndex,
    HashRange,
    ShardNames,
    hash_strings,
    owners_of,
)
from pipeline.output.ledger.history import History
from pipeline.output.ledger.indexed import names_among, names_of, read_hashes, write_hashes
from pipeline.sources.formats.registry import FORMATS, shard_names
from pipeline.storage import parquet
from pipeline.storage.parquet import read_table, write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import Row, random_world, table_of
from tests.support.outputs.closed_runs import BARE, close_run

FILE = "data/run=1/part-00000.parquet"


def written(store: Store, rows: list[Row]) -> pa.Table:
    table = table_of(rows)
    write_table(store, FILE, table, row_group_size=7)
    assert write_hashes(store, FILE) == len(table)
    return table


def test_the_usual_shards_are_those_of_the_formats() -> None:
    assert shard_names(InputSpec(uris=("any",))) == USUAL_SHARDS
    of_formats = [suffix for one in FORMATS if one.is_shard for suffix in one.suffixes]
    assert list(USUAL_SHARDS.suffixes) == of_formats


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ranges", [1, 2, 3, 7])
def test_ranges_have_every_row_once(
    seed: int, ranges: int, local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed, "GROUP_ROWS", 3)
    rows = [row for run in random_world(seed + 1).runs for row in run]
    table = written(local_store, rows)
    parts = [HashRange(number, ranges) for number in range(ranges)]
    read = [read_hashes(local_store, FILE, len(table), part) for part in parts]
    for part, some in zip(parts, read, strict=True):
        assert part.holds(owners_of(some)).all()
    found, expected = pa.concat_tables(read), USUAL_SHARDS.hashed(table)
    order = [(name, "ascending") for name in HASHED.names]
    assert found.sort_by(order).equals(expected.sort_by(order))


@pytest.mark.parametrize("count", [0, 1, 100])
def test_names_are_found_again(count: int, local_store: Store) -> None:
    rows = [Row(f"s3://b/{n}.jpg", "A") for n in range(count)]
    table = written(local_store, rows)
    wanted = table["uri"].take(pa.array(range(0, count, 9), pa.int64()))
    index = HashIndex(np.unique(hash_strings(wanted)))
    expected = sorted(wanted.to_pylist())
    assert sorted(names_of(local_store, FILE, index)) == expected
    assert sorted(names_among(local_store, FILE, index)) == expected


def closed(store: Store, number: int) -> None:
    rows = [Row(f"s3://b/{n}.jpg", str(number)) for n in range(number, 40)]
    gone = vanished_rows([f"s3://b/{number - 1}.jpg"], table_of([]).schema)
    close_run(
        store, pa.concat_tables([table_of(rows), gone]), [], identity=BARE, expected=len(rows)
    )


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "SMALL_FILE_ROWS", 20)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the data files that are opened."""
    names: list[str] = []

    def noted(function: Callable[..., object]) -> Callable[..., object]:
        def open_table(store: Store, name: str) -> object:
            if name.startswith(layout.DATA):
                names.append(Path(name).name)
            return function(store, name)

        return open_table

    for module in (parquet, indexed):
        monkeypatch.setattr(module, "open_table", noted(module.open_table))
    return names


@pytest.mark.usefixtures("large")
def test_a_plan_reads_no_data_file(local_store: Store, read: list[str]) -> None:
    for number in (1, 2):
        closed(local_store, number)
    history = History.load(local_store)
    read.clear()
    assert len(history.ledger(USUAL_SHARDS)) == 38
    assert not read
    gone = HashIndex(np.unique(hash_strings(pa.chunked_array([["s3://b/5.jpg"]]))))
    assert history.vanished(gone, None) == ["s3://b/5.jpg"]
    named = ShardNames(USUAL_SHARDS.suffixes, frozenset(["s3://b/5"]))
    assert len(history.ledger(named)) == 38
    assert read


def cut(store: Store) -> None:
    name = next(name for name in store.list(layout.HISTORY) if "hashes" in name)
    store.write_bytes(name, store.read_bytes(name)[:-20])


def of_other_rows(store: Store) -> None:
    name = next(name for name in store.list(layout.HISTORY) if "hashes" in name)
    write_table(store, name, read_table(store, name).slice(1))


def gone(store: Store) -> None:
    for name in list(store.list(layout.HISTORY)):
        if "hashes" in name:
            store.remove(name)


def with_other_endings(store: Store) -> None:
    index = store.read_json(layout.HISTORY_INDEX)
    store.write_json(layout.HISTORY_INDEX, {**index, "shards": [".jpg"]})


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("damage", [cut, of_other_rows, gone, with_other_endings])
def test_what_is_damaged_is_read_from_the_files(
    damage: Callable[[Store], None], local_store: Store
) -> None:
    for number in (1, 2):
        closed(local_store, number)
    expected = History.load(local_store).ledger(USUAL_SHARDS)
    damage(local_store)
    found = History.load(local_store).ledger(USUAL_SHARDS)
    np.testing.assert_array_equal(found.uris, expected.uris)
    np.testing.assert_array_equal(found.images.versions, expected.images.versions)
    wanted = HashIndex(hash_strings(pa.chunked_array([["s3://b/5.jpg"]])))
    assert History.load(local_store).vanished(wanted, None) == ["s3://b/5.jpg"]


@pytest.mark.usefixtures("large")
def test_the_hashes_of_replaced_files_are_removed(local_store: Store) -> None:
    closed(local_store, 1)
    close_run(local_store, table_of([Row("s3://b/1.jpg", "A")]), [], identity=BARE, full=True)
    assert not [name for name in local_store.list(layout.HISTORY) if "hashes" in name]


@pytest.mark.usefixtures("large")
def test_ranges_of_a_ledger_are_the_ledger(local_store: Store) -> None:
    for number in (1, 2, 3):
        closed(local_store, number)
    history = History.load(local_store)
    whole = history.ledger(USUAL_SHARDS, ALL)
    parts = [history.ledger(USUAL_SHARDS, HashRange(number, 3)) for number in range(3)]
    assert min(map(len, parts))
    np.testing.assert_array_equal(np.concatenate([part.uris for part in parts]), whole.uris)
