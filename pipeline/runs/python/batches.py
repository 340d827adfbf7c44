"""Batches of somebody else's dataset as Arrow tables, however Ray hands them over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from ray.data.block import BlockAccessor

from pipeline.contract.errors import UsageError

Batch: TypeAlias = pa.Table | pd.DataFrame | Mapping[str, Any]
"""``batch_format`` "pyarrow", "pandas", and "numpy" or "default"."""


def as_table(batch: Batch) -> pa.Table:
    """A batch of any format as a table."""
    if isinstance(batch, pa.Table):
        return batch
    if isinstance(batch, pd.DataFrame):
        return pa.Table.from_pandas(batch, preserve_index=False)
    return BlockAccessor.batch_to_arrow_block(dict(batch))


def typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with its columns in the types that a schema has for them, which NumPy and pandas
    do not all keep: a whole number that is missing makes floats of all."""
    for number, name in enumerate(table.column_names):
        if (at := schema.get_field_index(name)) >= 0:
            field = schema.field(at)
            table = table.set_column(number, field, _cast(table.column(number), field.type))
    return table


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type) and pa.types.is_integer(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    return column.cast(kind)


def check_free(names: Iterable[str], own: Iterable[str]) -> None:
    """Refuse columns that would be there twice.

    Raises:
        UsageError: the message names them.
    """
    own = set(own)
    if taken := [name for name in names if name in own]:
        renamed = f"ds.rename_columns({{'{taken[0]}': 'my_{taken[0]}'}})"
        raise UsageError(
            f"the batch has columns that the results have, too: {', '.join(taken)}; drop or rename "
            f"them before, as with {renamed}"
        )
