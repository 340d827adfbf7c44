"""Unchanged content under a new name: its numbers are copied from an earlier row, by sha256."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import RunError
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import Status
from pipeline.output.ledger.hashes import HashIndex, hash_strings
from pipeline.output.ledger.history import History
from pipeline.storage.parquet import read_columns, read_table

_OWN_COLUMNS = ("uri", "size_bytes", "sha256", "source_version")
"""What a copied row has of its own; the rest comes from the row that it copies."""


@dataclass(frozen=True)
class Contents:
    """The images that earlier runs with the same identity computed."""

    history: History
    identity: Identity

    def index(self) -> HashIndex:
        """Hashes of the sha256 of every image that has numbers."""
        columns = ("sha256", "status")
        tables = read_columns(self.history.store, self._files(), columns)
        hashes = [hash_strings(_computed(table)["sha256"]) for table in tables]
        return HashIndex(np.unique(np.concatenate([np.array([], np.uint64), *hashes])))

    def fill(self, table: pa.Table) -> pa.Table:
        """Replace rows that are marked as copies with complete ones, in their places.

        Raises:
            RunError: an earlier row is gone.
        """
        is_copy = pc.equal(table["status"], Status.COPIED.value)
        copies = table.filter(is_copy)
        if not copies.num_rows:
            return table
        sources = self._rows(copies["sha256"].combine_chunks(), table.schema)
        at = pc.index_in(copies["sha256"], sources["sha256"].combine_chunks())
        if at.null_count:
            raise RunError(
                f"{at.null_count} images were to be copied from rows that are gone; "
                "start over with <policy.discard_open_run> and without <policy.reuse_content>"
            )
        own = {*_OWN_COLUMNS, *(self.identity.kept or {})}
        columns = [
            copies[name] if name in own else sources[name].take(at) for name in table.column_names
        ]
        filled = pa.concat_tables([table, pa.table(columns, schema=table.schema)])
        places = np.arange(len(table))
        places[is_copy.to_numpy()] = np.arange(len(table), len(filled))
        return filled.take(places)

    def _files(self) -> Iterator[str]:
        for run in self.history.runs:
            if run.identity == self.identity:
                yield from run.file_names

    def _rows(self, wanted: pa.Array, schema: pa.Schema) -> pa.Table:
        """One computed row for each sha256 found, fully reading only the files that have some."""
        found = [schema.empty_table()]
        for name in self._files():
            if not len(wanted):
                break
            hashes = read_table(self.history.store, name, ["sha256"])
            if (
                "sha256" in hashes.column_names
                and pc.any(pc.is_in(hashes["sha256"], wanted)).as_py()
            ):
                rows = _computed(read_table(self.history.store, name))
                rows = rows.filter(pc.is_in(rows["sha256"], wanted))
                found.append(with_columns(rows, schema))
                wanted = wanted.filter(pc.invert(pc.is_in(wanted, rows["sha256"].combine_chunks())))
        return pa.concat_tables(found)


def _computed(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["status"], Status.OK.value))


def with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema: those that an earlier version did not write yet are null."""
    missing = pa.nulls(len(rows))
    columns = [rows[f.name] if f.name in rows.column_names else missing for f in schema]
    return pa.table(
        [column.cast(f.type) for column, f in zip(columns, schema, strict=True)], schema
    )
