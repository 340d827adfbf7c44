"""Columns of the input that are carried along to the output, determined before the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.schema import LABELS, NO_COLUMNS, SOURCE, TOP_K
from pipeline.contract.spec import InputSpec
from pipeline.sources.inputs import find_files, usage_errors
from pipeline.sources.inventory import CHUNK_ROWS

EVERYTHING = "*"
RESERVED = frozenset({*SOURCE.names, *(field.name for field in TOP_K), LABELS.name, "embedding"})
"""Columns that the output may have itself."""

log = logging.getLogger(__name__)


def kept_columns(inputs: InputSpec) -> pa.Schema:
    """The columns that ``--keep`` names, with the types that they have in the input.

    They are read from the first file of each format among the first ``CHUNK_ROWS`` objects of every
    INPUT. Columns that later files lack are null in their rows.

    Raises:
        UsageError: a name is the output's own, or no INPUT has such a column, or two have it with
            incompatible types.
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


def _reserved(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(name for name in names if name in RESERVED or name.startswith("_"))


def _offered(uri: str, inputs: InputSpec) -> Iterator[pa.Schema]:
    seen: set[str] = set()
    with usage_errors(uri):
        for format, row in islice(find_files(uri, inputs), CHUNK_ROWS):
            if format.kind not in seen:
                seen.add(format.kind)
                yield format.columns(row["uri"], inputs)


def _unified(schemas: list[pa.Schema]) -> pa.Schema:
    try:
        return pa.unify_schemas([NO_COLUMNS, *schemas], promote_options="permissive")
    except pa.ArrowException as error:
        raise UsageError(
            f"columns of two INPUTs have the same name and incompatible types: "
            f"{one_line(error)}; process them in separate runs"
        ) from error
