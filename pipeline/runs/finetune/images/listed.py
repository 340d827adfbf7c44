"""The labelled images of an INPUT, as its listing has them: nothing is read but lists."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import KEPT
from pipeline.contract.spec import FinetuneSpec, InputSpec
from pipeline.runs.finetune.labelled.kinds import ONE_CLASS, Kind
from pipeline.runs.finetune.labelled.labels import Labels
from pipeline.runs.finetune.labelled.samples import Samples, check_matches
from pipeline.runs.finetune.labelled.split import check_taught
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
    given: list[bool] = field(default_factory=list)
    """Whether a file says of each of the ``labels`` that its image is held out."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Images of each label that is not trained on."""
    seen: set[str] = field(default_factory=set)
    """What files of labels name, and is among the single images."""
    kind: Kind = ONE_CLASS

    @classmethod
    def of(cls, spec: FinetuneSpec, labels: Labels, exclude: str) -> Listed:
        """List the INPUT, but for what lies below ``exclude``.

        Raises:
            UsageError: it cannot be listed, or the labels are those of other images, or of too few.
        """
        ignored = Counter(dict.fromkeys(labels.ignored, 0))
        found, inputs = cls(ignored=ignored, kind=labels.kind), input_spec(spec)
        for table in inventory(inputs, exclude=exclude, kept=_kept_columns(inputs)):
            found._add(table, labels)
        found.unmatched = sorted(labels.named.keys() - found.seen)
        found._check(labels)
        return found

    def _add(self, table: pa.Table, labels: Labels) -> None:
        of_shards = is_shard(table["kind"])
        self.shards += pc.sum(of_shards).as_py() or 0
        taken = []
        for row, is_one in zip(table.to_pylist(), of_shards.to_pylist(), strict=True):
            uri = row["uri"]
            self.seen |= labels.keys_of(uri)
            value = _kept(row, labels.column)
            taken.append(is_one or self._takes(uri, labels.of(uri, value), labels))
        self.tables.append(table.filter(pa.array(taken, pa.bool_())))

    def _takes(self, uri: str, label: str | None, labels: Labels) -> bool:
        """Count a single image; whether it is learned from."""
        if label is None:
            self.unlabelled += 1
        elif (ignored := labels.left_out(label)) is not None:
            self.ignored[ignored] += 1
        else:
            self.labels.append(label)
            self.given.append(labels.is_held_out(uri))
            return True
        return False

    def _check(self, labels: Labels) -> None:
        if self.shards:  # their members may have any label
            return
        check_matches(labels, self.unmatched, "INPUT")
        if not self.labels:
            raise UsageError(
                f"no image of the INPUT has a label ({self.unlabelled} without one); a uri must be "
                "as it is listed"
            )
        classes = set(self.kind.classes(self.labels))
        if labels.held_out:
            trained = (name for name, held in zip(self.labels, self.given, strict=True) if not held)
            taught = chain.from_iterable(map(self.kind.names, trained))
            check_taught(sorted(classes.difference(taught)), given=True)

    @property
    def classes(self) -> dict[str, int]:
        """The single images of each class, by name."""
        found = Counter(chain.from_iterable(map(self.kind.names, self.labels)))
        return dict(sorted(found.items()))

    def counted(self, samples: Samples) -> Samples:
        """What was read of the listed images, with what was not read of them."""
        return replace(
            samples,
            unlabelled=samples.unlabelled + self.unlabelled,
            ignored={label: n + samples.ignored[label] for label, n in self.ignored.items()},
        )

    def fingerprint(self, labels: Labels) -> str:
        """SHA-256 (hex) over names, versions and labels of everything that is learned from."""
        digest = hashlib.sha256(repr(sorted(self.labels)).encode("utf-8", "surrogatepass"))
        for row in sorted(_rows(self.tables), key=lambda row: str(row["uri"])):
            label = labels.of(row["uri"], _kept(row, labels.column))
            told = (row["uri"], row["source_version"], row["size_bytes"], row.get(KEPT), label)
            digest.update(repr(told).encode("utf-8", "surrogatepass"))
            if labels.is_held_out(row["uri"]):
                digest.update(b"held out")
        if self.shards:
            named = sorted(labels.named.items())
            digest.update(repr(named).encode("utf-8", "surrogatepass"))
            if labels.held_out:
                held_out = sorted(labels.held_out)
                digest.update(repr(held_out).encode("utf-8", "surrogatepass"))
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
