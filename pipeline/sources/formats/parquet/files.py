"""Parquet files: opening them, their columns, and which of these holds images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import IMAGE_COLUMNS, SHARD_SUFFIXES, InputSpec
from pipeline.sources.kept_values import plain_type
from pipeline.storage.filesystems import open_binary

PARQUET_SUFFIXES = SHARD_SUFFIXES["parquet"]
MAGIC = b"PAR1"
FOOTER_BYTES = 32 * 2**20
"""The most that a footer may have. In memory it takes some ten times as much."""
_TAIL_BYTES = 8
"""The size of the footer, and the magic."""

_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


def find_image_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """The column that holds encoded images, as binary or as Hugging Face datasets' struct of bytes
    and path; None if there is none. Usual names are also known in capitals, as SQL writes them."""
    for name in named_so(schema.names, wanted, IMAGE_COLUMNS):
        if _is_image(schema.types[schema.names.index(name)]):
            return name
    return None


def named_so(names: Collection[str], wanted: str | None, usual: Iterable[str]) -> list[str]:
    """Those of the names that are ``wanted`` or, if that is None, ``usual``, the best first."""
    if wanted is not None:
        return [name for name in names if name == wanted]
    exact = [name for name in usual if name in names]
    return exact + [name for one in usual for name in names if name.lower() == one != name]


def _is_image(stored: pa.DataType) -> bool:
    stored = plain_type(stored)
    if pa.types.is_struct(stored):
        at = stored.get_field_index("bytes")
        return at >= 0 and _is_image(stored.field(at).type)
    return any(is_binary(stored) for is_binary in _BINARY)


def parquet_columns(uri: str, inputs: InputSpec) -> pa.Schema:
    """The columns beside the images.

    Raises:
        UsageError: the file cannot be read as Parquet.
        OSError: the storage failed.
    """
    schema = parquet_schema(uri)
    image_column = find_image_column(schema, inputs.image_column)
    return pa.schema([field for field in schema if field.name != image_column])


def parquet_schema(uri: str) -> pa.Schema:
    """The columns of a file; raises as ``parquet_footer`` does."""
    return parquet_footer(uri)[0]


def parquet_footer(uri: str) -> tuple[pa.Schema, int]:
    """The columns of a file, and how many rows it has.

    Raises:
        UsageError: the file cannot be read as Parquet.
        OSError: the storage failed.
    """
    try:
        with open_binary(uri) as file:
            parquet = open_parquet(file)
            return plain_schema(parquet), parquet.metadata.num_rows
    except ValueError as error:
        raise UsageError(f"{uri} cannot be read as Parquet: {one_line(error)}") from error


def is_parquet(file: Any) -> bool:
    """Whether a file begins and ends as Parquet does; leaves the file at its start."""
    found: bool = file.read(len(MAGIC)) == MAGIC
    if found:
        file.seek(-len(MAGIC), os.SEEK_END)
        found = file.read() == MAGIC
    file.seek(0)
    return found


def open_parquet(file: Any, **options: Any) -> pq.ParquetFile:
    """A Parquet file that is read as a stream.

    Raises:
        ValueError: its footer is damaged, or it is not Parquet.
        OSError: the storage failed.
    """
    _check_footer(file)
    options = {"buffer_size": 2**20, "pre_buffer": False} | options
    try:
        return pq.ParquetFile(file, **options)
    except pa.ArrowException as error:  # also of types that Arrow does not have
        raise ValueError(error) from error
    except OSError as error:
        if error.errno is None:  # Arrow's own, about a damaged footer
            raise ValueError(error) from error
        raise


def _check_footer(file: Any) -> None:
    """Refuse a footer that is too large, before it is read."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    file.seek(0)
    footer = int.from_bytes(tail[:4], "little")
    if tail[4:] == MAGIC and FOOTER_BYTES < footer <= size:
        raise ValueError(f"it says to have {footer} bytes of metadata")


def plain_schema(parquet: pq.ParquetFile) -> pa.Schema:
    """The columns, with the types of the values, not those in which they are stored. Of columns
    with the same name, the first counts."""
    fields: dict[str, pa.DataType] = {}
    for field in parquet.schema_arrow:
        fields.setdefault(field.name, plain_type(field.type))
    return pa.schema(fields.items())
