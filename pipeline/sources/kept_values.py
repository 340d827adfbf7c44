"""Kept columns as values: one type for a column of many files, and each value fitted to it.

Files may disagree about a column; no image fails for that. A column has the type in which all files
that were looked at agree, if need be a wider number, else text. A value that does not fit is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

ROW_BYTES = 2 * 2**20
"""What an image may carry in all. A value beyond it is left out: its column is null."""
MOST_NESTING = 16
"""Types nested more deeply become text: Arrow writes some that it cannot read again."""
NUMBER_BYTES = 8
"""The least that an element of a list counts for, as Python takes more for it than Arrow."""

_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_LARGE_LISTS = (pa.types.is_large_list, pa.types.is_large_list_view)


def plain_type(stored: pa.DataType) -> pa.DataType:
    """The type of the values, not that in which they are stored; one that every reader knows."""
    if isinstance(stored, pa.BaseExtensionType):
        return plain_type(stored.storage_type)
    if pa.types.is_dictionary(stored) or pa.types.is_run_end_encoded(stored):
        return plain_type(stored.value_type)
    if pa.types.is_map(stored):
        return pa.map_(plain_type(stored.key_type), plain_type(stored.item_type))
    if any(is_list(stored) for is_list in _LISTS):
        return _plain_list(stored)
    if pa.types.is_struct(stored):
        return _plain_struct(stored)
    return pa.string() if pa.types.is_union(stored) else _VIEWS.get(stored, stored)


def _plain_list(stored: pa.DataType) -> pa.DataType:
    value = stored.value_field.with_type(plain_type(stored.value_type))
    if pa.types.is_fixed_size_list(stored):
        return pa.list_(value, stored.list_size)
    is_large = any(test(stored) for test in _LARGE_LISTS)
    return pa.large_list(value) if is_large else pa.list_(value)


def _plain_struct(stored: pa.DataType) -> pa.DataType:
    """Text if Parquet has no such struct, or Python no such dict."""
    fields = [field.with_type(plain_type(field.type)) for field in stored]
    names = {field.name for field in fields}
    return pa.struct(fields) if fields and len(names) == len(fields) else pa.string()


def common_type(stored: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that has these types in some files: that in which they agree, where
    numbers become wider ones and nulls anything; else text."""
    types = list(stored)
    if any(map(is_deep, types)):
        return pa.string()
    columns = [pa.schema([("", plain_type(one))]) for one in types]
    try:
        common = pa.unify_schemas(columns, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()
    return pa.string() if pa.types.is_null(common) else common


def is_deep(stored: pa.DataType) -> bool:
    """Whether a type is nested more deeply than columns of the output may be."""
    level = [stored]
    for _ in range(MOST_NESTING):
        level = [one.field(number).type for one in level for number in range(one.num_fields)]
    return bool(level)


def fitted(value: Any, wanted: pa.DataType) -> Any:
    """A value as a column of this type takes it: others than strings become JSON in a column of
    text, and what does not fit becomes None."""
    if value is None:
        return None
    if wanted == pa.string() or wanted == pa.large_string():
        value = _as_text(value)
    try:
        pa.array([value], wanted).validate(full=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return None if _loses_fractions(value, wanted) else value


def _loses_fractions(value: Any, wanted: pa.DataType) -> bool:
    """Whether Arrow would silently take a fraction for a whole number."""
    if pa.types.is_integer(wanted):
        return isinstance(value, float) and not value.is_integer()
    if isinstance(value, list) and any(is_list(wanted) for is_list in _LISTS):
        return any(_loses_fractions(item, wanted.value_type) for item in value)
    if isinstance(value, dict) and pa.types.is_struct(wanted):
        return any(_loses_fractions(value.get(field.name), field.type) for field in wanted)
    return False


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else json.dumps(value, default=str)


def fitted_values(values: Mapping[str, Any], wanted: pa.Schema) -> dict[str, Any]:
    """Values of an image, as the columns take them, and no more of them than an image may carry."""
    found: dict[str, Any] = {}
    total = 0
    for field in wanted:
        value = fitted(values.get(field.name), field.type)
        size = bytes_of(pa.array([value], field.type))
        found[field.name] = value if total + size <= ROW_BYTES else None
        total += size if total + size <= ROW_BYTES else 0
    return found


def fitted_row(row: pa.RecordBatch, wanted: pa.Schema) -> tuple[dict[str, Any], int]:
    """The values of a batch of one row, and how many bytes they have, about."""
    values: dict[str, Any] = {}
    total = 0
    for field in wanted:
        column = row.column(row.schema.names.index(field.name))
        size = bytes_of(column)
        if total + size <= ROW_BYTES:
            total += size
            values[field.name] = fitted(_python_value(column), field.type)
        else:
            values[field.name] = None
    return values, total


def _python_value(column: pa.Array) -> Any:
    plain = plain_type(column.type)
    try:
        if (
            isinstance(column, pa.ExtensionArray) or plain.num_fields
        ):  # Python has values of its own
            column = column.cast(plain)
        return column[0].as_py()
    except (pa.ArrowException, ValueError, OverflowError):  # such as a date after the year 9999
        return None


def bytes_of(array: pa.Array) -> int:
    """What the values take; of a dictionary, the values and not what they are stored in."""
    if isinstance(array, pa.ExtensionArray):
        return bytes_of(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return __bytes_of_dictionary(array)
    if isinstance(array, pa.StructArray):
        return sum(map(bytes_of, array.flatten()))
    if isinstance(array, pa.MapArray):
        return bytes_of(array.keys) + bytes_of(array.items)
    if any(is_list(array.type) for is_list in _LISTS):
        return bytes_of(array.flatten())
    return max(int(array.nbytes), NUMBER_BYTES * len(array))


def __bytes_of_dictionary(array: pa.DictionaryArray) -> int:
    values = array.dictionary
    if not pa.types.is_binary(values.type) and not pa.types.is_string(values.type):
        return NUMBER_BYTES * len(array)
    total: int | None = pc.sum(pc.binary_length(values).take(array.indices)).as_py()
    return total or 0
