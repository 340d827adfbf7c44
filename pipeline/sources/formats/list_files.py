"""Rows of the files that list things: text, CSV, JSONL and Parquet, read as a stream."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract.errors import UsageError, one_line
from pipeline.storage.filesystems import filesystem
from pipeline.storage.uris import local_path, split_uri

_TEXT_SUFFIXES = (".txt", ".csv", ".jsonl", ".ndjson")
LIST_SUFFIXES = (*_TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in _TEXT_SUFFIXES))
PARQUET_SUFFIXES = (".parquet", ".pq")
SAMPLED_LINES = 1000
"""Lines of a JSONL file that decide the types of its columns."""

_BROKEN = (csv.Error, ValueError, EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(frozen=True)
class Records:
    """The rows of a file, and what they hold."""

    schema: pa.Schema
    rows: Iterator[dict[str, Any]]


@contextmanager
def open_records(uri: str) -> Iterator[Records]:
    """Read a file by its extension: a text file is a column ``uri`` of its lines; CSV has a header
    and holds strings; the types of JSONL are those of its first ``SAMPLED_LINES`` lines.

    Raises:
        UsageError: the content is not what the extension says.
        OSError: the storage failed.
    """
    protocol, path = split_uri(uri)
    name = path.lower()
    try:
        with _open(protocol, path) as file:
            if name.endswith(PARQUET_SUFFIXES):
                yield _parquet(file)
                return
            plain = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
            text = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
            kind = name.removesuffix(".gz").rpartition(".")[2]
            yield {"csv": _csv, "txt": _lines}.get(kind, _jsonl)(text)
    except _BROKEN as error:
        raise UsageError(f"{uri} cannot be read as a list: {one_line(error)}") from error


def read_schema(uri: str) -> pa.Schema:
    """The columns of a file; raises as ``open_records`` does."""
    with open_records(uri) as records:
        return records.schema


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, without how they are stored."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _open(protocol: str, path: str) -> Any:
    if protocol == "file":
        return open(local_path(path), "rb")
    return filesystem(protocol).open(path, "rb")


def _parquet(file: Any) -> Records:
    try:
        parquet = pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
    except OSError as error:
        if error.errno is None:  # Arrow's own, of a damaged footer
            raise ValueError(error) from error
        raise
    schema = pa.schema([(f.name, plain_type(f.type)) for f in parquet.schema_arrow])
    batches = parquet.iter_batches(batch_size=4096)
    return Records(schema, (row for batch in batches for row in batch.to_pylist()))


def _lines(text: io.TextIOWrapper) -> Records:
    lines = (line.rstrip("\r\n") for line in text)
    return Records(pa.schema([("uri", pa.string())]), ({"uri": line} for line in lines))


def _csv(text: io.TextIOWrapper) -> Records:
    reader = csv.reader(text, strict=True)
    header = next(reader, [])
    if len(set(header)) < len(header):
        raise ValueError("two columns of its header have the same name")
    return Records(pa.schema([(name, pa.string()) for name in header]), _cells(reader, header))


def _cells(reader: Any, header: list[str]) -> Iterator[dict[str, Any]]:
    for cells in reader:
        if len(cells) != len(header) and cells:
            raise ValueError(
                f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}"
            )
        if cells:
            yield dict(zip(header, cells, strict=True))


def _jsonl(text: io.TextIOWrapper) -> Records:
    objects = _objects(text)
    first = list(islice(objects, SAMPLED_LINES))
    names = dict.fromkeys(name for row in first for name in row)
    schema = pa.schema([(name, _type_of([row.get(name) for row in first])) for name in names])
    mixed = frozenset(name for name in names if schema.field(name).type == pa.string())
    return Records(schema, (_as_text(row, mixed) for row in chain(first, objects)))


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        yield row


def _type_of(values: list[Any]) -> pa.DataType:
    """What Arrow makes of the values; strings of JSON where they are of several kinds."""
    try:
        kind = pa.array(values).type
    except pa.ArrowException:
        return pa.string()
    return pa.string() if pa.types.is_null(kind) else kind


def _as_text(row: dict[str, Any], columns: frozenset[str]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if name in columns and not isinstance(value, str | None) else value
        for name, value in row.items()
    }
