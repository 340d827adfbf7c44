"""The section of a model's page about the champion: who is right, class by class, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import layout
from pipeline.monitoring.page import extent, figure, number, sheet, table

CLASSES_SHOWN = 100
NAMED = 10
ROWS_SHOWN = 20


class Outcome(StrEnum):
    """Who is right about an image: the column ``contest`` of ``layout.PREDICTIONS``, null where the
    two are not compared. Of sets, only the classes that both know are looked at."""

    SAME = "same"
    """They say the same, right or not."""
    CHAMPION = "only_champion_right"
    CHALLENGER = "only_challenger_right"
    NEITHER = "neither_right"


_KINDS = {
    Outcome.CHAMPION: "The champion alone is right",
    Outcome.CHALLENGER: "This model alone is right",
    Outcome.NEITHER: "Neither is right",
}
_SHOWN = ("uri", "label", "predicted", "champion", "contest", "score")


def differing(predictions: pa.Table, most: int) -> list[str]:
    """URIs of held-out images of which the champion says something else: in turn one of each kind,
    so that a few of them show all kinds."""
    kinds = [rows.to_pylist() for rows in _kinds(predictions)]
    ordered = sorted(
        (place, kind, row["uri"])
        for kind, rows in enumerate(kinds)
        for place, row in enumerate(rows)
    )
    return [uri for _, _, uri in ordered[:most]]


def _kinds(predictions: pa.Table) -> list[pa.Table]:
    """Those of ``_KINDS``, each the surest first."""
    differ = pc.not_equal(predictions["contest"], Outcome.SAME)
    rows = predictions.select(_SHOWN).filter(differ)
    rows = rows.sort_by([("score", "descending"), ("uri", "ascending")])
    return [rows.filter(pc.equal(rows["contest"], one)) for one in _KINDS]


def render_contest(
    champion: Mapping[str, Any] | None,
    predictions: pa.Table,
    pictures: Mapping[str, str],
    *,
    of_sets: bool = False,
) -> str:
    """The section; nothing without a champion.

    Args:
        champion: what metrics.json says of it.
        predictions: ``layout.PREDICTIONS``.
        pictures: JPEGs of some images in base 64, by uri.
        of_sets: whether labels are sets of classes.
    """
    if not champion:
        return ""
    kinds = _kinds(predictions)
    return (
        f"<h2>Against the champion</h2>{''.join(_sentences(champion, of_sets))}"
        f"{_classes(champion['classes'], champion['lost_recall'])}"
        f"{_pictures(kinds, pictures)}{_rows(kinds)}"
    )


def _sentences(champion: Mapping[str, Any], of_sets: bool) -> Iterator[str]:
    mine, its = champion["only_challenger_right"], champion["only_champion_right"]
    known = ", by the classes that both know," if of_sets else " of classes that both know,"
    yield _said(
        f"On {champion['images']:,} held-out images{known} this model alone is "
        f"right about {mine:,}, {champion['model']} alone about {its:,}. If both were equally "
        f"good, a difference like that would come up with probability {champion['p_value']:.3g} "
        "(McNemar's exact test)."
    )
    if lost := list(champion["lost_recall"]):
        more = f" and {len(lost) - NAMED:,} more" if len(lost) > NAMED else ""
        yield _said(f"More than 5 points of recall are lost by {', '.join(lost[:NAMED])}{more}.")
    new, old = champion["unknown_to_champion"], champion["only_champion_knows"]
    if new:
        left_out = f"{champion['left_out']:,} held-out images of them are left out here"
        effect = "nobody is right or wrong by them here" if of_sets else left_out
        yield _said(f"{_classes_of(len(new))} this model alone knows; {effect}.")
    if old:
        yield _said(f"{_classes_of(len(old))} the champion alone knows.")


def _said(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _classes_of(count: int) -> str:
    return "1 class" if count == 1 else f"{count:,} classes"


def _classes(classes: Sequence[Mapping[str, Any]], lost: Mapping[str, Any]) -> str:
    """The greatest loss first."""
    ordered = sorted(classes, key=lambda one: one["challenger"] - one["champion"])
    rows = (
        f"<tr{' class=alarm' if one['class'] in lost else ''}><td>{escape(one['class'])}"
        f"{number(one['images'], ',')}{number(one['champion'], '.1%')}"
        f"{number(one['challenger'], '.1%')}"
        f"{number(100 * (one['challenger'] - one['champion']), '+.1f')}"
        for one in ordered[:CLASSES_SHOWN]
    )
    some = extent(CLASSES_SHOWN, len(classes))
    head = "<tr><th>class<th>images<th>champion's recall<th>this model's<th>points"
    return table(f"Recall by class, the greatest loss first{some}", rows, head)


def _pictures(kinds: Sequence[pa.Table], pictures: Mapping[str, str]) -> str:
    """Those that there are; without any, nothing."""
    sections = ""
    for title, rows in zip(_KINDS.values(), kinds, strict=True):
        figures = [
            figure(
                pictures[row["uri"]],
                f"label <b>{escape(row['label'])}</b><br>this model: {escape(row['predicted'])}"
                f"<br>champion: {escape(row['champion'])}",
            )
            for row in rows.to_pylist()
            if row["uri"] in pictures
        ]
        sections += sheet(f"{title}{extent(len(figures), len(rows))}", figures)
    return sections


def _rows(kinds: Sequence[pa.Table]) -> str:
    differing_rows = pa.concat_tables(kinds)
    rows = (
        f"<tr><td>{escape(row['uri'])}<td>{escape(row['label'])}<td>{escape(row['predicted'])}"
        f"<td>{escape(row['champion'])}"
        for row in differing_rows.slice(0, ROWS_SHOWN).to_pylist()
    )
    title = f"Where the two differ{extent(ROWS_SHOWN, len(differing_rows), layout.PREDICTIONS)}"
    return table(title, rows, "<tr><th>image<th>label<th>this model<th>champion")
