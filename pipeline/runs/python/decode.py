"""The decode stage for datasets that a program has put together itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import FetchError, UsageError
from pipeline.contract.schema import NO_COLUMNS, PIXELS, SOURCE, WORK
from pipeline.contract.spec import IMAGE_COLUMNS, SETTINGS, URI_COLUMNS
from pipeline.contract.urls import row_uri
from pipeline.model.families.registry import load_checkpoint
from pipeline.runs.python.batches import Batch, as_table, check_free
from pipeline.runs.python.keywords import Keywords, Place, run_spec
from pipeline.runs.python.shown import as_in_python
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from pipeline.sources.formats.lists import find_uri_column, named_objects
from pipeline.sources.formats.parquet.files import find_image_column
from pipeline.sources.formats.parquet.rows import image_bytes
from pipeline.sources.formats.registry import IMAGE
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_items
from pipeline.storage.files import check_size
from pipeline.storage.uris import is_web

_PLACES = (
    "model.source", "model.activation", "model.image_size", "model.decode", "inputs.uri_column",
    "inputs.image_column", "inputs.allow_private_urls", "inputs.allow_protocols",
    "inputs.max_pixels", "inputs.max_decode_seconds", "inputs.max_bytes",
)  # fmt: skip
KEYWORDS = Keywords(SETTINGS[place] for place in _PLACES)
NOWHERE = {"inputs.uris": (".",), "output.uri": "."}
"""What a run must have, and a stage alone has not."""

DECODED = pa.schema([SOURCE.field("uri").with_nullable(True), *list(SOURCE)[1:], PIXELS])
"""What comes out, before the other columns of the batch."""


class Decode:
    """Images to pixels, for ``ds.map_batches(Decode(model=...))``.

    A batch has a column of encoded images (binary, or the struct of Hugging Face's datasets), or
    one of URIs and paths, from which they are fetched; with both, the URIs are names. A row comes
    out for each, in tables of some dozens of rows: ``uri``, ``status``, ``error_code``,
    ``error_message``, ``width``, ``height``, ``size_bytes``, ``sha256`` and ``source_version`` as
    in the output of a run, ``_pixels`` for ``Predict``, and all other columns of the batch. What is
    wrong with an image becomes its row; nothing is raised for it.

    Args:
        model: the checkpoint whose preprocessing counts; it is read here, and not by the workers.
        settings: settings of a run that have to do with decoding and fetching, by keyword.

    Raises:
        UsageError: a setting is wrong or the checkpoint cannot be read; from the workers, if a
            batch has no such column.
    """

    def __init__(self, model: Place, **settings: Any) -> None:
        with as_in_python(KEYWORDS.spell, progress=False):
            found = KEYWORDS.values(settings | {"model": model})
            spec = run_spec(NOWHERE | {"output.embeddings": True} | found)
            if spec.model.decode == "gpu":
                raise UsageError("<model.decode> gpu is for whole runs alone; use fast")
            preprocessing = load_checkpoint(spec.model).preprocessing
        self._settings = DecodeSettings.of(spec, preprocessing, NO_COLUMNS)
        self._wanted = spec.inputs.image_column, spec.inputs.uri_column
        self._here = os.getcwd()

    def __call__(self, batch: Batch) -> Iterator[pa.Table]:
        """Rows with pixels, in order."""
        table = as_table(batch)
        image, uri = self._columns(table.schema)
        others = table.drop_columns([name for name in (image, uri) if name is not None])
        check_free(others.column_names, DECODED.names)
        self._settings.environment.apply()
        names = table[uri] if uri is not None else pa.nulls(len(table), pa.string())
        items = self._fetched(names) if image is None else self._given(table[image], names)
        done = 0
        for decoded in decode_items(items, self._settings):
            here = slice(done, done + len(decoded))
            done += len(decoded)
            rows = _named(decoded, names[here])
            for name in others.column_names:
                rows = rows.append_column(others.schema.field(name), others[name][here])
            yield rows

    def _columns(self, schema: pa.Schema) -> tuple[str | None, str | None]:
        """Those of the images and of their names."""
        image, uri = self._wanted
        columns = find_image_column(schema, image), find_uri_column(schema, uri)
        lacking = (image is not None and columns[0] is None) or (uri and columns[1] is None)
        if lacking or columns == (None, None):
            raise UsageError(
                f"the batch has no column of encoded images ({image or ', '.join(IMAGE_COLUMNS)}) "
                f"or of URIs ({uri or ', '.join(URI_COLUMNS)}) but {_described(schema)}; name it "
                "with image_column (binary, not decoded) or uri_column"
            )
        return columns

    def _given(self, images: pa.ChunkedArray, names: pa.ChunkedArray) -> Iterator[Item]:
        """Images that are in the batch."""
        for image, name in zip(images, names, strict=True):
            data = image_bytes(image)
            uri = _shown(name.as_py() or "")
            size = 0 if data is None else data.as_buffer().size
            item = Item(uri=uri, source_version=None, size_bytes=size)
            try:
                check_size(size, self._settings.max_bytes)
                yield replace(item, data=b"" if data is None else data.as_py())
            except FetchError as error:
                yield replace(item, error=error)

    def _fetched(self, names: Sequence[pa.Scalar]) -> Iterator[Item]:
        """Images that are fetched."""
        rows = named_objects((name.as_py() for name in names), self._here)
        work = pa.Table.from_pylist([row | {"kind": IMAGE.kind} for row in rows], schema=WORK)
        return fetch_items(work, self._settings.max_bytes, self._settings.read)


def _shown(name: str) -> str:
    return row_uri(name) if is_web(name) else name


def _named(decoded: pa.Table, names: pa.ChunkedArray) -> pa.Table:
    """The columns that others need; an image without a name has none."""
    uris = pc.if_else(pc.is_valid(names), decoded["uri"], None)
    columns = [uris, *(decoded[name] for name in DECODED.names[1:])]
    return pa.table(columns, schema=DECODED)


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
