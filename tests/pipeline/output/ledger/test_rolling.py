"""What is kept of all nights for the next: as good as the files themselves, or not used at all."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract import layout
from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Manifest
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import vanished_rows
from pipeline.output.ledger import rolling, segments
from pipeline.output.ledger.hashes import LEDGER_COLUMNS, HashIndex, hash_strings
from pipeline.output.ledger.history import History
from pipeline.output.ledger.ledger import Ledger
from pipeline.storage import parquet
from pipeline.storage.parquet import read_columns
from pipeline.storage.store import Store
from tests.support.inputs.world import SHARD_NAMES, Row, table_of
from tests.support.outputs.closed_runs import close_run


def publish(store: Store, rows: pa.Table, **what: Any) -> Manifest:
    """As a run that computes nothing but what the ledger reads."""
    at = rows.schema.get_field_index("error_message")
    rows = rows.set_column(at, rows.schema.field(at), rows["error_code"])
    return close_run(store, rows, [], identity=Identity(fingerprint="f00d"), **what)


def night(store: Store, number: int, *, full: bool = False) -> None:
    """Some new images, one that changes every night, one that fails, one that vanishes, and a shard
    that loses a member."""
    uris = [f"s3://b/{number}-{n}.jpg" for n in range(4)]
    rows = [Row(uri, "A") for uri in uris] + [Row("s3://b/every.jpg", str(number))]
    rows += [Row("s3://b/bad.jpg", str(number), "timeout"), Row(f"s3://b/x.tar#{number}", "A")]
    rows += [Row("s3://b/x.tar#every", "A")]
    gone = vanished_rows([f"s3://b/{number - 1}-0.jpg"], table_of([]).schema)
    publish(store, pa.concat_tables([table_of(rows), gone]), expected=len(rows), full=full)


def nights(store: Store, number: int) -> None:
    for n in range(number):
        night(store, n)


def from_data(store: Store) -> Ledger:
    """The ledger by the published files alone."""
    runs = History(store, History.load(store).runs).runs
    tables = [list(read_columns(store, run.file_names, LEDGER_COLUMNS)) for run in runs]
    return Ledger.from_runs(tables, SHARD_NAMES)


def check_ledger(store: Store) -> None:
    found, expected = History.load(store).ledger(SHARD_NAMES), from_data(store)
    assert found.codes == expected.codes
    for ours, theirs in zip(arrays(found), arrays(expected), strict=True):
        assert np.array_equal(ours, theirs)


def arrays(ledger: Ledger) -> Iterator[Any]:
    for objects in (ledger.images, ledger.shards):
        yield from (objects.index.keys, objects.versions, objects.rows, objects.failures)
        yield objects.slots
    yield from (ledger.shard_at, ledger.superseded, ledger.damaged)


@contextmanager
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that are read."""
    names: list[str] = []
    read_bytes, open_table = Store.read_bytes, parquet.open_table

    def read(self: Store, name: str) -> bytes:
        names.append(name)
        return read_bytes(self, name)

    def opened(store: Store, name: str) -> Any:
        names.append(name)
        return open_table(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "read_bytes", read)
        patch.setattr(parquet, "open_table", opened)
        yield names


def read_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plan of a night reads of the output."""
    with noted(monkeypatch) as names:
        History.load(store).ledger(SHARD_NAMES)
    return names


def test_many_nights_take_as_many_reads_as_two(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights(local_store, 12)
    names = read_for(local_store, monkeypatch)
    assert len(names) == 4
    assert not [name for name in names if name.startswith(layout.DATA)]
    check_ledger(local_store)
    history = History.load(local_store)
    gone = HashIndex(np.unique(hash_strings(pa.chunked_array([["s3://b/3-1.jpg"]]))))
    assert history.vanished(gone, None) == ["s3://b/3-1.jpg"]


def test_an_output_of_an_earlier_version(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights(local_store, 5)
    local_store.remove(layout.HISTORY)
    assert len(read_for(local_store, monkeypatch)) == 1 + 5 + 5
    check_ledger(local_store)
    night(local_store, 5)
    assert len(read_for(local_store, monkeypatch)) == 4
    check_ledger(local_store)


def kept_by(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(name) for name in store.list(layout.HISTORY)}


def put_back(store: Store, kept: dict[str, bytes]) -> None:
    store.remove(layout.HISTORY)
    for name, data in kept.items():
        store.write_bytes(name, data)


@pytest.mark.parametrize("number", [0, 3], ids=["without files", "with files"])
def test_whoever_has_read_the_earlier_runs_keeps_the_same(local_store: Store, number: int) -> None:
    """The data files were listed before those of the newest run were there."""
    nights(local_store, 2)
    known, before = History.load(local_store, for_rows=True), kept_by(local_store)
    newest = publish(local_store, table_of([Row(f"s3://b/{n}.jpg", "B") for n in range(number)]))
    assert len(newest.files) == bool(number)
    expected = kept_by(local_store)
    put_back(local_store, before)
    History.ending_with(local_store, newest, known).keep()
    assert kept_by(local_store) == expected
    check_ledger(local_store)


def rows_file(store: Store) -> str:
    return next(name for name in store.list(layout.HISTORY) if name.endswith(".parquet"))


def cut(store: Store, name: str) -> None:
    store.write_bytes(name, store.read_bytes(name)[:-20])


def another_file(store: Store) -> None:
    """A data file that was restored from elsewhere."""
    name = next(iter(store.list(layout.DATA)))
    parquet.write_table(store, name, table_of([Row("s3://b/restored.jpg", "A")]))


def forged(store: Store) -> None:
    index = store.read_json(layout.HISTORY_INDEX)
    index["segments"][0]["name"] = "../elsewhere.parquet"
    store.write_json(layout.HISTORY_INDEX, index)


DAMAGE: dict[str, Callable[[Store], object]] = {
    "no index": lambda store: store.remove(layout.HISTORY_INDEX),
    "half an index": lambda store: cut(store, layout.HISTORY_INDEX),
    "an index of something else": lambda store: store.write_json(layout.HISTORY_INDEX, [1]),
    "an index that leads elsewhere": forged,
    "no rows": lambda store: store.remove(rows_file(store)),
    "half of the rows": lambda store: cut(store, rows_file(store)),
    "other rows": lambda store: parquet.write_table(store, rows_file(store), table_of([])),
    "another data file": another_file,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_or_stale_is_read_from_the_files(
    local_store: Store, damage: Callable[[Store], object]
) -> None:
    nights(local_store, 3)
    damage(local_store)
    check_ledger(local_store)
    night(local_store, 3)
    check_ledger(local_store)


def test_runs_that_it_has_not_seen_and_runs_that_are_gone(local_store: Store) -> None:
    """By a version that knows nothing of it; and by hand."""
    nights(local_store, 2)
    old = kept_by(local_store)
    nights(local_store, 2)
    put_back(local_store, old)
    assert len(History.load(local_store).runs) == 4
    check_ledger(local_store)
    for directory in (layout.data_dir("00000001"), layout.run_dir("00000001")):
        local_store.remove(directory)
    assert len(History.load(local_store).runs) == 3
    check_ledger(local_store)


def test_the_nights_until_one_of_them(local_store: Store) -> None:
    """Whatever closed since, also if it replaced them."""
    nights(local_store, 3)
    before = from_data(local_store)
    last = History.load(local_store).runs[0]
    for full in (False, True):
        night(local_store, 3, full=full)
        then = History.load(local_store, until=last.run_id)
        assert then.runs[0] == last
        assert len(then.runs) == 3
        assert np.array_equal(then.ledger(SHARD_NAMES).uris, before.uris)


def test_a_data_file_that_is_gone_is_missed(local_store: Store) -> None:
    nights(local_store, 3)
    name = list(local_store.list(layout.DATA))[1]
    local_store.remove(name)
    with pytest.raises(UsageError, match=rf"{name}.*; restore it, or .*policy\.full"):
        History.load(local_store).ledger(SHARD_NAMES)


def test_a_full_run_leaves_nothing_of_what_it_replaces(local_store: Store) -> None:
    nights(local_store, 3)
    night(local_store, 3, full=True)
    index = local_store.read_json(layout.HISTORY_INDEX)
    assert [run["run_id"] for run in index["runs"]] == ["00000003"]
    assert len(local_store.list(layout.HISTORY)) == 2
    check_ledger(local_store)


def test_large_files_stay_where_they_are_and_no_segment_grows_for_ever(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "SMALL_FILE_ROWS", 20)
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 40)
    nights(local_store, 5)
    many = table_of([Row(f"s3://b/many-{n}.jpg", "A") for n in range(30)])
    publish(local_store, many, rows_per_part=30)
    for number in range(5, 9):
        night(local_store, number)
    index = local_store.read_json(layout.HISTORY_INDEX)
    kept = [file["name"] for segment in index["segments"] for file in segment["files"]]
    assert len(kept) == len(set(kept)) == 9
    assert not [name for name in kept if "run=00000005" in name]
    sizes = [sum(file["rows"] for file in one["files"]) for one in index["segments"]]
    assert max(sizes) <= 40 + 20
    assert len(sizes) < 9
    assert len(local_store.list(layout.HISTORY)) == len(sizes) + 2  # and the hashes of one file
    check_ledger(local_store)


def test_the_index_has_no_list_of_what_vanished(local_store: Store) -> None:
    gone = vanished_rows(["s3://b/x.jpg"], table_of([]).schema)
    run = publish(local_store, gone, expected=0)
    (kept,) = json.loads(local_store.read_bytes(layout.HISTORY_INDEX))["runs"]
    assert "vanished" not in kept
    assert History.load(local_store).runs == (run,)
