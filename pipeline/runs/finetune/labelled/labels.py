"""Which label an image has: by files of labels, a column of the output, or its directory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.corrections import (
    COLUMNS,
    Correction,
    correction_from,
    is_corrections,
    newest,
)
from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import FinetuneSpec
from pipeline.contract.spec.finetune import NO_LABELS
from pipeline.output.corrections.adding import is_export, read_file
from pipeline.output.corrections.collected import load
from pipeline.runs.finetune.labelled.kinds import ONE_CLASS, Kind, examples, kind_of
from pipeline.sources.formats.list_files import Records, open_records
from pipeline.sources.formats.lists import find_uri_column, named_image
from pipeline.sources.formats.registry import format_of_listed
from pipeline.sources.formats.text_lines import OddLine
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store
from pipeline.storage.uris import is_web

SUFFIX_COLUMN = "uri_suffix"
"""Of a file of labels, instead of one with URIs: what the URIs end with, after a slash."""
CORRECTED = "correct_label"
LABEL_COLUMNS = (CORRECTED, "label")
"""Of a file of labels; the first one present counts."""
_QUEUE = frozenset({"reason", "value"})
"""Beside ``label``, these columns make a file a review queue, whose labels are a model's."""
_OF_ONE_CLASS = (
    "say one class of an image, and <finetune.multi_label> learns sets of them; write the right "
    "ones into a file of <finetune.labels>"
)


@dataclass(frozen=True)
class Labels:
    """What is known of labels before any image is looked up."""

    named: Mapping[str, str | None]
    """Those of files and corrections, by URI or by the end of a URI; None of an image that is of no
    class, or not usable, and is not trained on."""
    column: str | None
    uses_directory: bool
    files: Sequence[str] = field(default=())
    """Where ``named`` comes from."""
    ignored: frozenset[str] = field(default=frozenset())
    """Labels whose images are not trained on."""
    held_out: frozenset[str] = field(default=frozenset())
    """Of ``named``, the images that are held out; empty if their content decides."""
    kind: Kind = ONE_CLASS
    """What a label is."""

    @classmethod
    def read(cls, spec: FinetuneSpec, outputs: Iterable[Store] = ()) -> Labels:
        """Read the files of labels, and what people said of the images of outputs. Corrections
        overrule labels, which nobody has dated, and among each other the newest counts; else, the
        later file does.

        Raises:
            UsageError: there is no label, or a file cannot be read, lacks a column, or gives an
                image two labels; or there are corrections, and labels are of another kind.
            DamagedFileError: a file of corrections beside an output is not whole.
        """
        stored = list(chain.from_iterable(map(load, outputs))) if spec.corrections else []
        if not (spec.labels or spec.label_from or spec.label_column or stored):
            raise UsageError(NO_LABELS)
        kind = kind_of(spec)
        if stored and not kind.needs_class:
            raise UsageError(
                f"{layout.CORRECTIONS} of the output {_OF_ONE_CLASS}, and switch "
                "<finetune.corrections> off"
            )
        held_out = [one for file in spec.val_labels for one in read_labels(file, kind)]
        if spec.val_labels and not held_out:
            raise UsageError("<finetune.val_labels> names no image; name some, or leave it out")
        told = (one for file in spec.labels for one in read_labels(file, kind))
        named = {
            uri: one.label or None for uri, one in newest(chain(told, held_out, stored)).items()
        }
        files = (*spec.labels, *spec.val_labels, *([layout.CORRECTIONS] if stored else []))
        return cls(
            named,
            spec.label_column,
            spec.label_from == "directory",
            files,
            frozenset(label.strip() for label in spec.ignore),
            frozenset(one.uri for one in held_out),
            kind,
        )

    def keys_of(self, uri: str) -> set[str]:
        """What files of labels call the image."""
        found = (_key_in(self.named, uri), _key_in(self.held_out, uri))
        return {key for key in found if key is not None}

    def is_held_out(self, uri: str) -> bool:
        """Whether a file says so."""
        return _key_in(self.held_out, uri) is not None

    def of(self, uri: str, value: Any) -> str | None:
        """The label of an image, None if it has none.

        Args:
            value: what the column of labels says of it, if there is one.
        """
        if (key := _key_in(self.named, uri)) is not None:
            return self.named[key]
        if self.column is not None:
            return self.kind.label(value)
        return directory_of(uri) if self.uses_directory else None

    def left_out(self, label: str) -> str | None:
        """What of a label is why its image is not trained on, if anything is."""
        return next((name for name in self.kind.names(label) if name in self.ignored), None)


def _key_in(names: Collection[str], uri: str) -> str | None:
    """What of ``names`` is the image: its URI, or else the longest end of it."""
    if uri in names or not names:
        return uri if uri in names else None
    slashes = (place for place, letter in enumerate(uri) if letter == "/")
    return next((end for place in slashes if (end := uri[place + 1 :]) in names), None)


def read_labels(file: str, kind: Kind = ONE_CLASS) -> list[Correction]:
    """What a file of labels says, or one of corrections, or an export of Label Studio, of images by
    their URIs, or by what these end with. Relative paths in the column of URIs are relative to the
    file.

    Raises:
        UsageError: it cannot be read, lacks a column, or gives an image two labels.
    """
    found: dict[tuple[str, str], Correction] = {}
    other: dict[str, tuple[Correction, Correction]] = {}
    try:
        with _records(file) as records:
            for one in _decisions(file, records, kind):
                first = found.setdefault((one.uri, one.when), one)
                if first.label != one.label:
                    other[one.uri] = first, one
    except FileNotFoundError as error:
        raise UsageError(f"{file} does not exist; check <finetune.labels>") from error
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot read <finetune.labels> {file}: {one_line(error)}") from error
    if other:
        pairs = [
            f"{uri}: {one.label or one.verdict} and {two.label or two.verdict}"
            for uri, (one, two) in other.items()
        ]
        raise UsageError(
            f"{file} gives {len(other)} images two labels, {examples(pairs)}; leave one of each"
        )
    return list(found.values())


@contextmanager
def _records(file: str) -> Iterator[Records]:
    """The rows of a table, or the annotations of an export of Label Studio, as corrections."""
    if is_export(file):
        said = read_file(file, "finetune.labels")
        yield Records(pa.schema([(name, pa.string()) for name in COLUMNS]), map(asdict, said))
        return
    with open_records(file) as records:
        yield records


def _decisions(file: str, records: Records, kind: Kind) -> Iterator[Correction]:
    names = records.schema.names
    if is_corrections(names):
        if not kind.needs_class:
            raise UsageError(f"{file} has corrections, which {_OF_ONE_CLASS}")
        return _corrections(file, records.rows)
    return _labels(file, records.rows, _columns(file, records.schema), kind)


def _columns(file: str, schema: pa.Schema) -> tuple[str, str]:
    """Those of the image and of its label."""
    uri_column = find_uri_column(schema, None)
    if uri_column is None and SUFFIX_COLUMN in schema.names:
        uri_column = SUFFIX_COLUMN
    label_column = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if uri_column is None or label_column is None:
        raise UsageError(
            f"{file} has the columns {', '.join(schema.names)}; a file of labels has uri and label"
        )
    if label_column == "label" and set(schema.names) >= _QUEUE:
        raise UsageError(
            f"{file} is a review queue, whose label is what the model proposed; write the right "
            "ones into a column correct_label"
        )
    return uri_column, label_column


def _labels(
    file: str,
    rows: Iterator[dict[str, Any] | OddLine],
    columns: tuple[str, str],
    kind: Kind,
) -> Iterator[Correction]:
    """Rows that have a label; in a review queue, those that somebody has corrected."""
    uri_column, label_column = columns
    for number, row in _numbered(file, rows):
        value, name = row.get(label_column), row.get(uri_column)
        label = kind.label(value)
        is_unnamed, is_blank = not str(name or "").strip(), not str(value).strip()
        if label is None or (is_blank and (is_unnamed or label_column == CORRECTED)):
            continue
        if not name:
            raise UsageError(f"{file}: row {number} has the label {label!r}, but names no image")
        try:
            is_whole = uri_column != SUFFIX_COLUMN
            uri = named_image(name, file) if is_whole else str(name).lstrip("/")
        except ValueError as error:
            raise UsageError(f"{file}: row {number} names no image: {one_line(error)}") from error
        yield Correction(uri=uri, label=label)


def _corrections(file: str, rows: Iterator[dict[str, Any] | OddLine]) -> Iterator[Correction]:
    for number, row in _numbered(file, rows):
        try:
            found = correction_from(row)
        except ValueError as error:
            raise UsageError(f"{file}: row {number} is no correction: {one_line(error)}") from error
        if found is not None:
            yield found


def _numbered(
    file: str, rows: Iterator[dict[str, Any] | OddLine]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        if isinstance(row, OddLine):
            raise UsageError(f"{file} cannot be read: {row.reason}")
        yield number, row


def directory_of(uri: str) -> str | None:
    """The name of the directory that an image is in, also within a tar; None if it is in none."""
    path = (uri.partition("?")[0] if is_web(uri) else uri).partition("://")[2] or uri
    container, mark, member = path.rpartition("#")
    if mark and format_of_listed(container).is_shard:
        folder = f"/{member}".rpartition("/")[0].removesuffix("/.")
        return folder.rpartition("/")[2] or None
    # What has no slash before it is no directory but a bucket or a host.
    _, mark, name = path.rpartition("/")[0].rpartition("/")
    return (name or None) if mark else None
