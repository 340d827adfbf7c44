"""The labelled images of an INPUT, as its listing has them: nothing is read but lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import KEPT
from pipeline.contract.spec import FinetuneSpec, InputSpec
from pipeline.runs.finetune.labels import Labels, check_classes
from pipeline.runs.finetune.samples import check_matches
from pipeline.sources.formats.registry import is_shard
from pipeline.sources.inventory import inventory
from pipeline.sources.kept_columns import kept_columns


def input_spec(spec: FinetuneSpec) -> InputSpec:
    """The INPUT of a fine-tuning, with the columns that it needs of it."""
    asked = (spec.label_column, spec.split_by)
    return InputSpec(
        uris=spec.outputs,
        format=spec.format,
        exclude=spec.exclude,
        uri_column=spec.uri_column,
        image_column=spec.image_column,
        keep=tuple(dict.fromkeys(name for name in asked if name is not None)),
    )


def holds_images(spec: FinetuneSpec) -> bool:
    """Whether something is found where the INPUTs are."""
    try:
        return next(inventory(input_spec(spec)), None) is not None
    except UsageError:
        return False


@dataclass
class Listed:
    """Single images that have a label, and the shards, of whose members nothing is known yet."""

    tables: list[pa.Table] = field(default_factory=list)
    """LISTING."""
    labels: list[str] = field(default_factory=list)
    """Of the single images."""
    shards: int = 0
    unlabelled: int = 0
    unmatched: list[str] = field(default_factory=list)
    """What files of labels name, and is not among the single images."""

    @classmethod
    def of(cls, spec: FinetuneSpec, labels: Labels, exclude: str) -> Listed:
        """List the INPUT, but for what lies below ``exclude``.

        Raises:
            UsageError: it cannot be listed, or the labels are those of other images, or of too few.
        """
        found, seen, inputs = cls(), set[str](), input_spec(spec)
        for table in inventory(inputs, exclude=exclude, kept=_kept_columns(inputs)):
            found._add(table, labels, seen)
        found.unmatched = sorted(labels.named.keys() - seen)
        found._check(labels)
        return found

    def _add(self, table: pa.Table, labels: Labels, seen: set[str]) -> None:
        of_shards = is_shard(table["kind"])
        self.shards += pc.sum(of_shards).as_py() or 0
        taken = []
        for row, is_one in zip(table.to_pylist(), of_shards.to_pylist(), strict=True):
            uri = row["uri"]
            if (key := labels.key_of(uri)) is not None:
                seen.add(key)
            label = None if is_one else labels.of(uri, _kept(row, labels.column))
            taken.append(is_one or label is not None)
            if label is not None:
                self.labels.append(label)
            elif not is_one:
                self.unlabelled += 1
        self.tables.append(table.filter(pa.array(taken, pa.bool_())))

    def _check(self, labels: Labels) -> None:
        if self.shards:  # their members may have any label
            return
        check_matches(labels, self.unmatched, "INPUT")
        if not self.labels:
            raise UsageError(
                f"no image of the INPUT has a label ({self.unlabelled} without one); a uri must be "
                "as it is listed"
            )
        check_classes(self.labels)

    def fingerprint(self, labels: Labels) -> str:
        """SHA-256 (hex) over names, versions and labels of everything that is learned from."""
        digest = hashlib.sha256(repr(sorted(self.labels)).encode("utf-8", "surrogatepass"))
        for row in sorted(_rows(self.tables), key=lambda row: str(row["uri"])):
            label = labels.of(row["uri"], _kept(row, labels.column))
            told = (row["uri"], row["source_version"], row["size_bytes"], row.get(KEPT), label)
            digest.update(repr(told).encode("utf-8", "surrogatepass"))
        if self.shards:
            named = sorted(labels.named.items())
            digest.update(repr(named).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _kept_columns(inputs: InputSpec) -> pa.Schema:
    try:
        return kept_columns(inputs)
    except UsageError as error:
        place = "<finetune.label_column>" if inputs.keep else "<finetune.outputs>"
        raise UsageError(f"{error.args[0]}; {place} asks for it") from error


def _rows(tables: Sequence[pa.Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.to_pylist()


def _kept(row: dict[str, Any], column: str | None) -> Any:
    kept = row.get(KEPT)
    return kept.get(column) if column is not None and isinstance(kept, dict) else None
