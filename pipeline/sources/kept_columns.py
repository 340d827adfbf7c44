"""Columns of the input that are carried along to the output, determined before the run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import CORRECTION, LABELS, NO_COLUMNS, SOURCE, TOP_K, TRAINING_PICTURE
from pipeline.contract.spec import InputSpec
from pipeline.sources.formats.registry import Format
from pipeline.sources.inputs import find_files, usage_errors
from pipeline.sources.inventory import CHUNK_ROWS
from pipeline.sources.kept_values import common_type
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.read_ahead import map_ahead

EVERYTHING = "*"
SAMPLED_FILES = 64
"""Of each format and INPUT: files whose columns decide the types."""
PARTITION = "run"
"""The directory ``run=<run_id>`` of a published file is a column to its readers."""
RESERVED = frozenset(
    {*SOURCE.names, *(field.name for field in [*TOP_K, LABELS, CORRECTION, TRAINING_PICTURE])}
    | {"embedding", PARTITION}
)
"""Columns that the output may have itself; in SQL, upper case is no difference."""

log = logging.getLogger(__name__)


def kept_columns(inputs: InputSpec) -> pa.Schema:
    """The columns that ``--keep`` names, each with the type in which the files of the INPUT agree.

    They are read from the first ``SAMPLED_FILES`` of each format among the first ``CHUNK_ROWS``
    objects of every INPUT. Columns that other files lack are null in their rows.

    Raises:
        UsageError: a name is the output's own, or no INPUT has such a column.
    """
    if not inputs.keep:
        return NO_COLUMNS
    offered = _unified([schema for uri in inputs.uris for schema in _offered(uri, inputs)])
    if inputs.keep == (EVERYTHING,):
        if taken := _reserved(offered.names):
            log.warning("not kept, because the output has columns with these names: %s", taken)
        return pa.schema([field for field in offered if not _reserved([field.name])])
    if taken := _reserved(inputs.keep):
        raise UsageError(f"<inputs.keep> names columns that the output itself has: {taken}")
    if unknown := [name for name in inputs.keep if name not in offered.names]:
        raise UsageError(
            f"<inputs.keep> names columns that the INPUT does not have: {', '.join(unknown)}; "
            f"it has: {', '.join(offered.names) or 'none'}"
        )
    return pa.schema([offered.field(name) for name in dict.fromkeys(inputs.keep)])


def _reserved(names: Iterable[str]) -> str:
    """Those that no column of an input can have in the output, which has it, or needs a name."""
    taken = (name for name in names if name.lower() in RESERVED or name.startswith("_") or not name)
    return ", ".join(name or '""' for name in taken)


def _offered(uri: str, inputs: InputSpec) -> Iterator[pa.Schema]:
    sampled: dict[str, Format] = {}
    seen: Counter[str] = Counter()
    with usage_errors(uri):
        for format, row in islice(find_files(uri, inputs), CHUNK_ROWS):
            seen[format.kind] += 1
            if seen[format.kind] <= SAMPLED_FILES:
                sampled[row["uri"]] = format
        is_lenient = len(sampled) > 1

        def columns(name: str) -> pa.Schema:
            return _columns(sampled[name], name, inputs, is_lenient=is_lenient)

        yield from map_ahead(columns, sampled)


def _columns(format: Format, uri: str, inputs: InputSpec, *, is_lenient: bool) -> pa.Schema:
    try:
        return format.columns(uri, inputs)
    except (UsageError, *STORAGE_ERRORS):
        if is_lenient and format.is_shard:  # reading it will end in a row that says so
            return NO_COLUMNS
        raise


def _unified(schemas: list[pa.Schema]) -> pa.Schema:
    types: dict[str, list[pa.DataType]] = {}
    for field in chain.from_iterable(schemas):
        types.setdefault(field.name, []).append(field.type)
    return pa.schema([(name, common_type(stored)) for name, stored in types.items()])
