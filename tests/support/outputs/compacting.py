"""Nights whose runs are to be combined, and what a reader sees of them."""

from typing import Any

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.schema import vanished_rows
from pipeline.contract.spec import CompactSpec
from pipeline.runs.compact.job import Compaction, compact
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import CLASSES, softmax

Rows = dict[str, dict[str, Any]]


def nights(store: Store, number: int = 3) -> None:
    """New images, changed ones, failures, and every night one that vanishes."""
    for n in range(number):
        changed = rows_of(softmax(n, 20), CLASSES)
        new = rows_of(softmax(9 + n, 5), CLASSES, prefix=f"new{n}-", failures=["corrupt"])
        close_run(store, pa.concat_tables([changed, new]), CLASSES)
        gone = vanished_rows([f"s3://bucket/new{n}-000000.jpg"], new.schema)
        close_run(store, gone, CLASSES, expected=0)


def combined(store: Store, **what: Any) -> Compaction:
    return compact(CompactSpec(output=store.uri, **what))


def rows_now(store: Store) -> Rows:
    """As ``current.json`` tells a reader: of each image the first row."""
    found: Rows = {}
    for name in store.read_json(layout.CURRENT)["files"]:
        for row in read_table(store, name).to_pylist():
            found.setdefault(row["uri"], row)
    return found


def present(rows: Rows) -> Rows:
    return {uri: row for uri, row in rows.items() if row["status"] != "vanished"}
