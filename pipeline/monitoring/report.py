"""The page that a person looks at after a run: one self-contained HTML file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import layout
from pipeline.contract.manifest import Drift, Manifest, describe_not_taken
from pipeline.monitoring.model.people import render_people
from pipeline.monitoring.model.shadow import render_shadow
from pipeline.monitoring.page import extent, facts, figure, number, page, sheet, tail
from pipeline.output.corrections.overview import Overview

THUMBNAILS = 48

LABELS_SHOWN = 30
CHANGES_SHOWN = 10
REVIEW_SHOWN = 10

_MEANING = {
    "uncertain": "margin to the second label",
    "unlike": "distance",
    "threshold": "distance from the threshold",
}
"""Of the value of an image in the review queue, by the reason."""
_SHEET = re.compile(r'<div class="sheet">.*?</div>', re.DOTALL)


def render(
    manifest: Manifest,
    failures: Sequence[Mapping[str, str]],
    thumbnails: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pa.Table] = MappingProxyType({}),
    said: Overview | None = None,
) -> str:
    """The whole page.

    Args:
        manifest: the one beside the page.
        failures: uri, error_code and error_message of some failed images.
        thumbnails: uri, label and base64 JPEG of some images.
        tables: those beside the page, by name: ``layout.CHANGES``, ``layout.REVIEW``,
            ``layout.SHADOW``.
        said: what people have said of the output's images so far.
    """
    sections = [
        tiles(manifest),
        _version(manifest),
        _not_taken(manifest.not_taken),
        _changes(manifest.drift, tables.get(layout.CHANGES)),
        render_people(said) if said else "",
        _bars("Labels", manifest.labels),
        _bars("Failures by code", manifest.failures, "bad"),
        _failures(failures, manifest.counts.failed),
        render_shadow(
            manifest.shadow, tables.get(layout.SHADOW), thumbnails, tables.get(layout.REVIEW)
        ),
        _review(tables.get(layout.REVIEW)),
        _sheet(thumbnails),
        facts("Model", manifest.model.to_dict()),
        facts("Plan", manifest.plan),
        facts("Seconds", manifest.timings.to_dict()),
        facts("Replicas", manifest.actors or {}),
        facts("Versions", manifest.versions),
    ]
    when = f"{manifest.started} to {manifest.finished}"
    return page(f"Run {manifest.run_id}", when, sections)


def tiles(manifest: Manifest) -> str:
    """The main numbers of a run, as HTML."""
    counts = manifest.counts
    values = [(name, f"{number:,}") for name, number in counts.to_dict().items()]
    values.append(("images per second", f"{manifest.timings.images_per_second:.1f}"))
    found = (
        f'<div class="tile{" bad" if name == "failed" and counts.failed else ""}">'
        f"<b>{value}</b>{name}</div>"
        for name, value in values
    )
    return f'<div class="tiles">{"".join(found)}</div>'


def _version(manifest: Manifest) -> str:
    """Which model it was, said where it changed."""
    if not manifest.model_before:
        return ""
    text = f"Another model than in the last run: {manifest.model.model}, not "
    return f'<p class="soft"><b>{escape(text + manifest.model_before)}</b></p>'


def _not_taken(files: Mapping[str, int]) -> str:
    return f'<p class="soft">{escape(describe_not_taken(files))}</p>' if files else ""


def _bars(title: str, numbers: Mapping[str, int], kind: str = "") -> str:
    """A histogram as a table; what follows the first rows is summed up in one."""
    if not numbers:
        return ""
    shown = list(numbers.items())[:LABELS_SHOWN]
    rest = sum(numbers.values()) - sum(count for _, count in shown)
    if rest:
        shown.append((f"{len(numbers) - LABELS_SHOWN} others", rest))
    most = max(count for _, count in shown)
    rows = "".join(
        f'<tr><td>{escape(name)}<td class="number">{count:,}'
        f'<td class="wide"><div class="bar" style="width:{100 * count / most:.1f}%"></div>'
        for name, count in shown
    )
    return f'<h2>{title}</h2><table class="{kind}">{rows}</table>'


def _failures(failures: Sequence[Mapping[str, str]], total: int) -> str:
    if not failures:
        return ""
    some = extent(len(failures), total)
    rows = "".join(
        f"<tr><td><code>{escape(f['error_code'])}</code><td>{escape(f['uri'])}"
        f"<td>{escape(f['error_message'])}"
        for f in failures
    )
    head = "<tr><th>code<th>image<th>reason"
    return f"<h2>Failed images{some}</h2><table>{head}{rows}</table>"


def _changes(drift: Drift, changes: pa.Table | None) -> str:
    """Every statistic with its threshold, then the labels and bins that moved most."""
    if not drift.runs:
        return ""
    compared = (
        f'<p class="soft">{drift.images_now:,} images, compared with {drift.images_before:,} '
        f"of the last {len(drift.runs)} runs"
    )
    if changes is None:
        return f"<h2>What changed</h2>{compared}: too few to tell</p>"
    is_term = pc.is_null(changes["threshold"])
    terms = changes.filter(is_term).sort_by([("value", "descending")])
    statistics = "".join(map(_change, changes.filter(pc.invert(is_term)).to_pylist()))
    moved = "".join(map(_change, terms.slice(0, CHANGES_SHOWN).to_pylist()))
    head = "<tr><th>what<th>before<th>now<th>statistic<th>value<th>threshold"
    return f"<h2>What changed</h2>{compared}</p><table>{head}{statistics}{moved}</table>"


def _change(row: Mapping[str, Any]) -> str:
    what = row["what"] if row["label"] is None else f"{row['what']}: {row['label']}"
    shares = number(row["before"], ".2%") + number(row["now"], ".2%")
    name = row["statistic"] + (", a term" if row["threshold"] is None else "")
    values = number(row["value"], ".3f") + number(row["threshold"], ".3f")
    bad = ' class="alarm"' if row["alarm"] else ""
    return f"<tr{bad}><td>{escape(what)}{shares}<td>{escape(name)}{values}"


def _review(queue: pa.Table | None) -> str:
    """The first images of each reason in the review queue; the page of the queue has them all, and
    those drawn by lot."""
    if queue is None:
        return ""
    link = f'<a href="{layout.REVIEW_PAGE}">{layout.REVIEW_PAGE}</a>'
    sections = [f"<h2>To review</h2><p>Look at them and correct them: {link}</p>"]
    for reason in pc.unique(queue["reason"]).to_pylist():
        if reason not in _MEANING:
            continue
        rows = queue.filter(pc.equal(queue["reason"], reason))
        lines = "".join(
            f"<tr><td>{escape(row['uri'])}<td>{escape(row['label'] or '')}"
            f"{number(row['score'], '.3f')}{number(row['value'], '.3f')}"
            for row in rows.slice(0, REVIEW_SHOWN).to_pylist()
        )
        sections.append(
            f"<h2>To review: {reason}{extent(REVIEW_SHOWN, len(rows), layout.REVIEW)}</h2>"
            f"<table><tr><th>image<th>label<th>score<th>{_MEANING[reason]}{lines}</table>"
        )
    return "".join(sections)


def _sheet(thumbnails: Sequence[Mapping[str, Any]]) -> str:
    figures = (
        figure(shot["jpeg"], f"<b>{escape(shot['label'] or '')}</b> {escape(tail(shot['uri']))}")
        for shot in thumbnails
    )
    return sheet("Some images, as the model saw them", figures)


def sheet_of(page: str) -> str:
    """The pictures of a page, as HTML; empty if it has none."""
    found = _SHEET.search(page)
    return found[0] if found else ""
