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

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import URI_COLUMNS
from pipeline.sources.formats.parquet.files import (
    PARQUET_SUFFIXES,
    is_parquet,
    open_parquet,
    plain_schema,
)
from pipeline.sources.formats.parquet.tables import table_rows
from pipeline.sources.formats.text_lines import OddLine, bounded_lines
from pipeline.sources.kept_values import is_deep
from pipeline.storage.filesystems import open_binary
from pipeline.storage.uris import printable

_PLAIN_SUFFIXES = (".txt", ".csv", ".jsonl", ".ndjson")
TEXT_SUFFIXES = (*_PLAIN_SUFFIXES, *(f"{suffix}.gz" for suffix in _PLAIN_SUFFIXES))
HEAD_BYTES = 2**16
"""How much is read of a file whose name does not tell its format."""
SAMPLED_LINES = 1000
SAMPLED_CHARACTERS = 8 * 2**20
"""Lines of a JSONL file that decide the types of its columns: so many, and no more than these."""
MOST_NESTING = 64
"""Levels of JSON in a line; Python's own limit depends on who asks."""

_PARSER = json.JSONDecoder(strict=False)  # raw control characters in names are accepted
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")
"""Its first two bytes, in either order, as they read when they are taken for UTF-8."""
csv.field_size_limit(2**24)  # Python's own, 128 KiB, would refuse a whole list for one cell
_BROKEN = (csv.Error, ValueError, EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(frozen=True)
class Records:
    """The rows of a file, and their schema. Their text is valid Unicode: bytes that are not UTF-8
    and lone surrogates are escaped, as ``printable`` does."""

    schema: pa.Schema
    rows: Iterator[dict[str, Any] | OddLine]


@contextmanager
def open_records(uri: str, uri_column: str | None = None) -> Iterator[Records]:
    """Read a file: a text file is a column ``uri`` of its lines; CSV has a header and holds
    strings; the types of JSONL are those of its first ``SAMPLED_LINES`` lines.

    Parquet is recognised by its first and last bytes, the others by their names. Under any other
    name the content decides: gzip by its first bytes, JSONL by a first line that begins with "{",
    CSV by a first line that contains ``uri_column`` or, if that is None, any of ``URI_COLUMNS``.
    Everything else is a text file, or CSV if a column other than ``uri`` is asked for.

    Raises:
        UsageError: the content does not match the format; the message names the line.
        OSError: the storage failed.
    """
    try:
        with open_binary(uri) as file:
            form, is_packed = _form_of(uri.lower(), file, uri_column)
            if form == "parquet":
                yield _parquet(file)
                return
            plain = gzip.GzipFile(fileobj=file) if is_packed else file
            with io.TextIOWrapper(plain, "utf-8-sig", "surrogateescape", newline="") as text:
                yield {"csv": _csv, "txt": _lines}.get(form, _jsonl)(_checked(bounded_lines(text)))
    except _BROKEN as error:
        raise UsageError(f"{uri} cannot be read as a list: {one_line(error)}") from error


def _form_of(name: str, file: Any, uri_column: str | None) -> tuple[str, bool]:
    """The suffix that the file has or should have, and whether it is compressed with gzip."""
    if name.endswith(PARQUET_SUFFIXES) or is_parquet(file):
        return "parquet", False
    if name.endswith(TEXT_SUFFIXES):
        return name.removesuffix(".gz").rpartition(".")[2], name.endswith(".gz")
    head = file.read(HEAD_BYTES)
    file.seek(0)
    is_packed = head.startswith(b"\x1f\x8b")
    if is_packed:
        head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    return _form_of_text(head.decode("utf-8-sig", "replace"), uri_column), is_packed


def _form_of_text(head: str, uri_column: str | None) -> str:
    line = next((line for line in head.splitlines() if line.strip()), "")
    if line.lstrip().startswith("{"):
        return "jsonl"
    cells = next(csv.reader([line]), [])
    names = (uri_column,) if uri_column else URI_COLUMNS
    has_header = not {*names}.isdisjoint(cells) or "uri" not in names
    return "csv" if has_header else "txt"


def _parquet(file: Any) -> Records:
    schema = plain_schema(open_parquet(file))
    large = OddLine("the row is too large, or holds what cannot be read")
    return Records(schema, (large if row is None else row for row in table_rows(file)))


def _checked(text: Iterable[str | OddLine]) -> Iterator[str | OddLine]:
    """The same lines, of a text that is in UTF-8."""
    for number, line in enumerate(text):
        if not number and isinstance(line, str) and line.startswith(_UTF16):
            raise ValueError("line 1 begins as UTF-16 does; save the file as UTF-8")
        yield line


def _lines(text: Iterable[str | OddLine]) -> Records:
    rows = (
        line if isinstance(line, OddLine) else {"uri": printable(line.rstrip("\r\n"))}
        for line in text
    )
    return Records(pa.schema([("uri", pa.string())]), rows)


def _csv(text: Iterable[str | OddLine]) -> Records:
    odd: list[OddLine] = []
    reader = csv.reader(_without_odd(text, odd), strict=True)
    header = next(_numbered(reader), [])
    if odd:
        raise ValueError(odd[0].reason)
    if any(header.count(name) > 1 for name in URI_COLUMNS):
        raise ValueError("two columns of its header have the same name")
    return Records(pa.schema([(name, pa.string()) for name in header]), _cells(reader, header, odd))


def _without_odd(text: Iterable[str | OddLine], odd: list[OddLine]) -> Iterator[str]:
    """The lines for a reader of CSV, and an empty one, which it passes over, for each odd one."""
    for line in text:
        if isinstance(line, OddLine):
            odd.append(line)
            yield "\n"
        else:
            yield printable(line)


def _cells(
    reader: Any, header: list[str], odd: list[OddLine]
) -> Iterator[dict[str, Any] | OddLine]:
    for cells in _numbered(reader):
        while odd:
            yield odd.pop(0)
        if len(cells) != len(header) and cells:
            raise ValueError(
                f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}"
            )
        if cells:
            # Of two columns with the same name, the first counts.
            yield dict(zip(reversed(header), reversed(cells), strict=True))


def _numbered(reader: Any) -> Iterator[list[str]]:
    """The rows of a reader of CSV, whose errors name their line."""
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _jsonl(text: Iterable[str | OddLine]) -> Records:
    lines = enumerate(text, 1)
    first = list(_parsed(_sample(lines)))
    values: dict[str, list[Any]] = {}
    for row in first:
        for name, value in row.items() if isinstance(row, dict) else ():
            values.setdefault(name, []).append(value)
    schema = pa.schema([(name, _type_of(found)) for name, found in values.items()])
    mixed = frozenset(field.name for field in schema if field.type == pa.string())
    rows = chain(first, _parsed(lines))
    return Records(
        schema, (row if isinstance(row, OddLine) else _as_text(row, mixed) for row in rows)
    )


def _sample(lines: Iterable[tuple[int, str | OddLine]]) -> Iterator[tuple[int, str | OddLine]]:
    """The first lines, as many as it takes and memory allows."""
    characters = 0
    for number, line in islice(lines, SAMPLED_LINES):
        yield number, line
        characters += len(line) if isinstance(line, str) else 0
        if characters > SAMPLED_CHARACTERS:
            return


def _parsed(lines: Iterable[tuple[int, str | OddLine]]) -> Iterator[dict[str, Any] | OddLine]:
    for number, line in lines:
        if isinstance(line, OddLine):
            yield line
        elif line.strip():
            yield _parse(line.strip(), number)


def _parse(line: str, number: int) -> dict[str, Any] | OddLine:
    try:
        row = _PARSER.decode(line)
        row = row if line.isascii() and "\\u" not in line else _cleaned(row)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # it is JSON, but too much of it
        return OddLine(f"line {number} cannot be read: {one_line(error)}")
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not a JSON object")
    if line.count("[") + line.count("{") > MOST_NESTING and _is_deep(row):
        return OddLine(f"line {number} is nested more than {MOST_NESTING} levels deep")
    return row


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_NESTING):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
    return bool(level)


def _cleaned(value: Any) -> Any:
    """Parsed JSON whose strings are valid Unicode."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _cleaned(item) for name, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _type_of(values: list[Any]) -> pa.DataType:
    """The type that Arrow infers; string (of JSON) if the values are of several kinds."""
    try:
        inferred = pa.array(values).type
    except (pa.ArrowException, ValueError, TypeError, OverflowError):  # also beyond 64 bits
        return pa.string()
    return pa.string() if pa.types.is_null(inferred) or is_deep(inferred) else inferred


def _as_text(row: dict[str, Any], columns: frozenset[str]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if name in columns and not isinstance(value, str | None) else value
        for name, value in row.items()
    }
