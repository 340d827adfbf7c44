"""Two sections of a model's page: where it is surely wrong, and labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import layout
from pipeline.monitoring.page import extent, figure, number, sheet, table, tail

ROWS_SHOWN = 20

Row = Mapping[str, Any]


def held_out(predictions: pa.Table) -> pa.Table:
    """The images that the model was not trained on."""
    return predictions.filter(pc.equal(predictions["split"], "validation"))


def mistakes(predictions: pa.Table) -> pa.Table:
    """Those of which it says something else than their label, the largest loss first; without
    ``scores``, of which there may be thousands in a row."""
    held = held_out(predictions.select([n for n in predictions.column_names if n != "scores"]))
    wrong = held.filter(pc.not_equal(held["label"], held["predicted"]))
    return wrong.sort_by([("loss", "descending"), ("uri", "ascending")])


def render_mistakes(predictions: pa.Table, pictures: Mapping[str, str]) -> str:
    """The section; nothing if there are none.

    Args:
        predictions: ``layout.PREDICTIONS``.
        pictures: JPEGs of some images in base 64, by uri.
    """
    head = "<tr><th>image<th>label<th>predicted<th>score"
    columns = ("predicted", "score")
    of = ("The surest mistakes", layout.PREDICTIONS)
    return _section(*of, mistakes(predictions), head, columns, pictures, _mistake)


def render_issues(issues: pa.Table, pictures: Mapping[str, str]) -> str:
    """The section of ``layout.LABEL_ISSUES``; nothing if there are none."""
    head = "<tr><th>image<th>label<th>probably<th>score of the label<th>of the other"
    columns = ("suggested", "score", "suggested_score")
    return _section("Labels in doubt", layout.LABEL_ISSUES, issues, head, columns, pictures, _issue)


def _section(
    title: str,
    file: str,
    found: pa.Table,
    head: str,
    columns: Sequence[str],
    pictures: Mapping[str, str],
    caption: Callable[[Row], str],
) -> str:
    """Pictures, in the order of the rows, and the first rows: of the ``columns`` behind the label,
    the first is a text, and the others are numbers."""
    text, *numbers = columns
    rows = (
        f"<tr><td>{escape(row['uri'])}<td>{escape(row['label'])}<td>{escape(row[text])}"
        + "".join(number(row[name], ".3f") for name in numbers)
        for row in found.slice(0, ROWS_SHOWN).to_pylist()
    )
    seen = found.filter(pc.is_in(found["uri"], pa.array(list(pictures), pa.string())))
    figures = (
        figure(pictures[row["uri"]], f"{caption(row)}<br>{escape(tail(row['uri']))}")
        for row in seen.to_pylist()
    )
    shown = sheet(f"{title}, as the model sees them{extent(len(seen), len(found))}", figures)
    return shown + table(f"{title}{extent(ROWS_SHOWN, len(found), file)}", rows, head)


def _mistake(row: Row) -> str:
    return (
        f"label <b>{escape(row['label'])}</b><br>predicted: {escape(row['predicted'])} "
        f"({row['score']:.0%})"
    )


def _issue(row: Row) -> str:
    return (
        f"label <b>{escape(row['label'])}</b><br>probably {escape(row['suggested'])} "
        f"({row['suggested_score']:.0%})"
    )
