"""A second model, in the shadow of a run's own: where it says something else of the same images.

Its answers travel with the rows until they are merged; what is counted here is all that remains.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import layout
from pipeline.contract.schema import SHADOW
from pipeline.monitoring.page import extent, figure, number, sheet, table
from pipeline.output.corrections.accuracy import interval

DIFFERING_LISTED = 100_000
"""The most images in ``layout.SHADOW``: those of which both models are the surest."""
LISTED = 30
"""The most classes, and pairs of them, in a manifest, of which the next nights keep a copy; and the
most images on a page."""

DIFFERING = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("shadow_label", pa.string()),
        pa.field("shadow_score", pa.float32()),
    ]
)


@dataclass(frozen=True)
class ShadowModel:
    """Which model it is."""

    name: str
    weights_sha256: str
    fingerprint: str
    key: str
    """What its answers are known by. An earlier attempt of the run may have had another one."""
    only_it: tuple[str, ...]
    """Classes that the run's own model does not have."""
    not_it: tuple[str, ...]
    """Classes that it does not have."""


@dataclass
class Disagreement:
    """Of some rows, what both models said."""

    model: ShadowModel
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Images by the labels that the run's own model and the second one gave them."""
    differing: pa.Table = field(default_factory=DIFFERING.empty_table)

    def add(self, rows: pa.Table) -> None:
        """Take up rows of the run as they are in its parts."""
        if SHADOW.name not in rows.column_names:
            return
        told = _told(rows, self.model.key)
        groups = told.group_by(["label", "shadow_label"]).aggregate([([], "count_all")])
        for group in groups.to_pylist():
            self.pairs[group["label"], group["shadow_label"]] += group["count_all"]
        self._list(told.filter(pc.not_equal(told["label"], told["shadow_label"])))

    def include(self, other: Disagreement) -> None:
        """Add what was counted over the rows that follow."""
        self.pairs.update(other.pairs)
        self._list(other.differing)

    def _list(self, found: pa.Table) -> None:
        both = pa.concat_tables([self.differing, found])
        if len(both) > DIFFERING_LISTED:
            least = pc.min_element_wise(both["score"], both["shadow_score"])
            keys = [("least", "descending"), ("uri", "ascending")]
            best = pc.select_k_unstable(both.append_column("least", least), DIFFERING_LISTED, keys)
            both = both.take(best)
        self.differing = both

    @property
    def compared(self) -> int:
        """Images of which both said something."""
        return self.pairs.total()

    @property
    def images_differing(self) -> int:
        return sum(images for (one, other), images in self.pairs.items() if one != other)

    def to_dict(self, ok: int) -> dict[str, Any]:
        """For the manifest, of a run with so many results."""
        model, differing = self.model, self.images_differing
        return {
            "model": model.name,
            "weights_sha256": model.weights_sha256,
            "fingerprint": model.fingerprint,
            "compared": self.compared,
            "not_compared": ok - self.compared,
            "differing": differing,
            "rate": differing / self.compared if self.compared else None,
            "interval": interval(differing, self.compared) if self.compared else None,
            "classes": list(self._classes())[:LISTED],
            "pairs": list(self._pairs())[:LISTED],
            "classes_only_it_has": len(model.only_it),
            "classes_it_lacks": len(model.not_it),
        }

    def _classes(self) -> Iterator[dict[str, Any]]:
        """The run's own labels, those first that the second model doubts most often."""
        images: Counter[str] = Counter()
        differing: Counter[str] = Counter()
        for (label, other), number_of in self.pairs.items():
            images[label] += number_of
            differing[label] += number_of if label != other else 0
        for label in sorted(images, key=lambda name: (-differing[name], name)):
            yield {"label": label, "images": images[label], "differing": differing[label]}

    def _pairs(self) -> Iterator[dict[str, Any]]:
        ordered = sorted(self.pairs.items(), key=lambda item: (-item[1], item[0]))
        for (label, other), images in ordered:
            if label != other:
                yield {"label": label, "shadow_label": other, "images": images}

    def table(self) -> pa.Table:
        """What ``layout.SHADOW`` has, by uri."""
        return self.differing.sort_by("uri")


def _told(rows: pa.Table, key: str) -> pa.Table:
    """The rows of which both models say something, as ``DIFFERING``."""
    second = rows[SHADOW.name].combine_chunks()
    whose, label, score = second.flatten()
    known = pc.and_(pc.equal(whose, key), pc.is_valid(rows["label"]))
    told = [rows["uri"], rows["label"], rows["score"], label, score]
    return pa.table(told, schema=DIFFERING).filter(pc.fill_null(known, fill_value=False))


def described(shadow: Mapping[str, Any]) -> str:
    """What a manifest says of it, in one line."""
    if not shadow["compared"]:
        return f"{shadow['model']} saw no image of this run"
    low, high = shadow["interval"]
    return (
        f"{shadow['model']} says something else of {shadow['differing']:,} of "
        f"{shadow['compared']:,} images ({shadow['rate']:.1%}; {low:.1%} to {high:.1%})"
    )


def render_shadow(
    shadow: Mapping[str, Any] | None,
    differing: pa.Table | None,
    thumbnails: Sequence[Mapping[str, Any]],
    queue: pa.Table | None = None,
) -> str:
    """The section of a run's page; nothing for a run without a second model.

    Args:
        differing: ``layout.SHADOW``, None if there is none.
        thumbnails: uri and base64 JPEG of some images, whatever is said of them.
        queue: ``layout.REVIEW``, None if there is none; it has pictures, too.
    """
    if shadow is None:
        return ""
    lines = [described(shadow)]
    if shadow["not_compared"]:
        lines.append(f"{shadow['not_compared']:,} results were not compared")
    for name, what in (("classes_only_it_has", "only it has"), ("classes_it_lacks", "it lacks")):
        if shadow[name]:
            lines.append(f"{shadow[name]:,} classes {what}")
    text = f"<h2>In the shadow</h2><p>{escape('; '.join(lines))}</p>"
    rows = [] if differing is None else differing.to_pylist()
    rows.sort(key=lambda row: -min(row["score"], row["shadow_score"]))
    known = {shot["uri"]: shot["jpeg"] for shot in thumbnails} | _queued(queue)
    return text + _pairs(shadow) + _classes(shadow) + _pictures(rows, known) + _surest(rows)


def _queued(queue: pa.Table | None) -> dict[str, str]:
    """The pictures of a review queue, in base 64, by uri."""
    if queue is None:
        return {}
    found = zip(queue["uri"].to_pylist(), queue["picture"].to_pylist(), strict=True)
    return {uri: b64encode(picture).decode() for uri, picture in found if picture is not None}


def _pairs(shadow: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><td>{escape(pair['label'])}<td>{escape(pair['shadow_label'])}"
        f"{number(pair['images'], ',')}"
        for pair in shadow["pairs"]
    )
    return table("What becomes what", rows, "<tr><th>published<th>in the shadow<th>images")


def _classes(shadow: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><td>{escape(one['label'])}{number(one['images'], ',')}"
        f"{number(one['differing'], ',')}{number(one['differing'] / one['images'], '.1%')}"
        for one in shadow["classes"]
        if one["differing"]
    )
    head = "<tr><th>published<th>images<th>other in the shadow<th>share"
    return table("Which classes it doubts", rows, head)


def _pictures(rows: Sequence[Mapping[str, Any]], known: Mapping[str, str]) -> str:
    """Those images of which there happens to be a picture. (The page's own sheet of pictures is the
    one whose class is "sheet" alone.)"""
    seen = [row for row in rows if row["uri"] in known][:LISTED]
    figures = (
        figure(
            known[row["uri"]],
            f"<b>{escape(row['label'])}</b> {row['score']:.2f}, in the shadow "
            f"<b>{escape(row['shadow_label'])}</b> {row['shadow_score']:.2f}",
        )
        for row in seen
    )
    return sheet("Some of them", figures, "sheet shadow")


def _surest(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = (
        f"<tr><td>{escape(row['uri'])}<td>{escape(row['label'])}{number(row['score'], '.3f')}"
        f"<td>{escape(row['shadow_label'])}{number(row['shadow_score'], '.3f')}"
        for row in rows[:LISTED]
    )
    title = f"Where both are surest{extent(LISTED, len(rows), layout.SHADOW)}"
    head = "<tr><th>image<th>published<th>score<th>in the shadow<th>score"
    return table(title, lines, head)
