"""Rows whose label is what people said, where they have said something."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.contract.corrections import Correction, newest
from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.schema import CORRECTION, Status
from pipeline.output.corrections.adding import read_all
from pipeline.output.ledger.hashes import HashIndex, Mask, hash_strings
from pipeline.runs.relabel.live_rows import LiveRows

_ROWS = 65_536
"""Read at a time."""
_LABEL = ("label", "label_id", "score")
"""Columns that a correction changes; what the model said stays in those of the best k."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corrected:
    """What people said of the images of an output."""

    decided: Mapping[str, Correction]
    label_ids: Mapping[str, int]
    """Of the model's classes; people may know others."""

    @classmethod
    def read(
        cls, files: Iterable[str], renamed: Mapping[str, str], classes: Sequence[str]
    ) -> Corrected:
        """Read files of corrections, or directories of them.

        Args:
            renamed: new names of classes by the old ones.
            classes: names by ``label_id``.

        Raises:
            UsageError: one cannot be read.
        """
        known = newest(one for name in files for one in read_all(name, "relabel.corrections"))
        decided = {
            uri: replace(one, label=renamed.get(one.label, one.label)) for uri, one in known.items()
        }
        return cls(decided, {name: number for number, name in enumerate(classes)})

    def check(self, rows: LiveRows) -> None:
        """Refuse corrections that are for the most part of other images than these rows.

        Raises:
            UsageError: they are.
        """
        uris = list(self.decided)
        known, _ = HashIndex(np.unique(rows.uris[rows.chosen])).find(_hashes(uris))
        unknown = [uri for uri, is_known in zip(uris, known, strict=True) if not is_known]
        if 2 * len(unknown) > len(uris):
            raise UsageError(
                f"{len(unknown)} of {len(uris)} images in <relabel.corrections> are not in "
                f"{rows.store.uri}, such as {one_line(unknown[0], 150)}; a uri must be as it is "
                "there"
            )
        if unknown:
            log.warning("%d of %d corrected images are not there", len(unknown), len(uris))

    def changed(self, rows: LiveRows, known: LiveRows) -> Mask:
        """Which of these rows ``known`` has with another correction, or without the one that there
        is now."""
        before: dict[str, tuple[str, str | None]] = {}
        for table in known.batches(_ROWS, ["uri", "label", CORRECTION.name]):
            told = table.filter(table[CORRECTION.name].is_valid())
            columns = (told[name].to_pylist() for name in ("uri", CORRECTION.name, "label"))
            before |= {uri: (verdict, label) for uri, verdict, label in zip(*columns, strict=True)}
        other = [u for u in before.keys() | self.decided.keys() if not self._stands(u, before)]
        found, _ = HashIndex(np.unique(_hashes(other))).find(rows.uris)
        return rows.chosen & found

    def _stands(self, uri: str, before: Mapping[str, tuple[str, str | None]]) -> bool:
        """Whether a row says the same as now. One of a failed image has no label."""
        now = self.decided.get(uri)
        if now is None or uri not in before:
            return False
        verdict, label = before[uri]
        return verdict == now.verdict and label in (now.label or None, None)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows with the labels that people gave them, and a column with their verdict."""
        rows = [self.decided.get(uri) for uri in table["uri"].to_pylist()]
        verdicts = [one and one.verdict for one in rows]
        is_ok = [status == Status.OK.value for status in table["status"].to_pylist()]
        at = [n for n, one in enumerate(rows) if one is not None and is_ok[n]]
        values: dict[str, list[Any]] = {name: table[name].to_pylist() for name in _LABEL}
        some = table.select(["topk_labels", "topk_scores"]).take(pa.array(at, pa.int64()))
        for n, best in zip(at, some.to_pylist(), strict=True):
            found = self._label(rows[n], dict(zip(*best.values(), strict=True)))
            for name, value in zip(_LABEL, found, strict=True):
                values[name][n] = value
        for name, column in values.items():
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            table = table.set_column(place, field, pa.array(column, field.type))
        names = table.column_names
        end = names.index("embedding") if "embedding" in names else len(names)
        return table.add_column(end, CORRECTION, pa.array(verdicts, CORRECTION.type))

    def _label(
        self, one: Correction | None, best: Mapping[str, float]
    ) -> tuple[str | None, int | None, float | None]:
        """Label, number and score of a corrected row: the model's score, if it is stored."""
        if one is None or one.verdict != "label":
            return None, None, None
        return one.label, self.label_ids.get(one.label), best.get(one.label)


def _hashes(uris: Sequence[str]) -> Any:
    return hash_strings(pa.chunked_array([pa.array(uris, pa.string())]))
