"""Reading many Parquet files."""

import threading
import time

import pyarrow as pa
import pytest

import pipeline.storage.parquet
from pipeline.storage.parquet import read_columns, write_table
from pipeline.storage.store import Store


class TestReadColumns:
    def test_order_and_columns(self, store: Store) -> None:
        names = [f"{n}.parquet" for n in range(40)]
        for name in names:
            write_table(store, name, pa.table({"uri": [name], "x": [1]}))
        tables = list(read_columns(store, names, ["uri"]))
        assert [table.to_pydict() for table in tables] == [{"uri": [name]} for name in names]

    def test_reads_ahead_only_so_far(
        self, local_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A ledger of thousands of files must not lie in memory all at once."""
        read: list[str] = []
        lock = threading.Lock()

        def count(store: Store, name: str, columns: object) -> pa.Table:
            with lock:
                read.append(name)
            return pa.table({})

        monkeypatch.setattr(pipeline.storage.parquet, "read_table", count)
        tables = read_columns(local_store, map(str, range(1000)), ["uri"])
        for _ in range(10):
            next(tables)
        time.sleep(0.2)
        assert 10 <= len(read) <= 60
        assert len(list(tables)) == 990
        assert sorted(map(int, read)) == list(range(1000))
