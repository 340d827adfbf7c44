"""The rows that an open run has committed, as the ledger has them: parts in portions, each of which
may be read anywhere, and hashed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa

from pipeline.output.ledger.hashes import HASHED, LEDGER_COLUMNS, ShardNames, owners_of, ranges_of
from pipeline.output.ledger.ledger import Ledger
from pipeline.storage.parquet import read_columns
from pipeline.storage.store import Store

PORTION_ROWS = 1_000_000
"""Whose names and hashes are in memory together, some 300 MiB."""


T = TypeVar("T")


def portions(parts: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    """Parts, of which it is said how many rows they have, some of them together."""
    some: list[T] = []
    rows = 0
    for part, number in parts:
        if some and rows + number > PORTION_ROWS:
            yield some
            some, rows = [], 0
        some.append(part)
        rows += number
    if some:
        yield some


def hashed_rows(parts: Sequence[str], store: Store, names: ShardNames) -> pa.Table:
    """The ``HASHED`` rows of some parts, in their order."""
    tables = read_columns(store, parts, LEDGER_COLUMNS)
    return pa.concat_tables([HASHED.empty_table(), *map(names.hashed, tables)])


def split_rows(
    parts: Sequence[str], store: Store, names: ShardNames, ranges: int
) -> tuple[int, list[pa.Table]]:
    """How many rows there are in some parts, and the same ``HASHED`` rows by ranges of hashes."""
    rows = hashed_rows(parts, store, names)
    range_of = ranges_of(owners_of(rows), ranges)
    return len(rows), [rows.filter(pa.array(range_of == number)) for number in range(ranges)]


def ledger_of(names: ShardNames, *pieces: pa.Table) -> Ledger:
    """An index over ``HASHED`` rows of one run."""
    return Ledger.from_hashed(((0, piece) for piece in pieces), names)
