"""What people said of a model's labels, as a part of a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from pipeline.monitoring.page import number, table
from pipeline.output.corrections.accuracy import CONFIDENCE, Accuracy, Confusion
from pipeline.output.corrections.overview import Overview

CONFUSIONS_SHOWN = 10
RUNS_SHOWN = 10


def render_people(said: Overview) -> str:
    """How often the model was right, by the random sample, and where people disagreed; nothing if
    they have said nothing."""
    damaged = "".join(f'<p class="alarm">{escape(text)}</p>' for text in said.damaged)
    if not said.images:
        return damaged
    what = escape(said.lines()[0])
    sample = (
        f"<p><b>The random sample says {escape(str(said.accuracy))}</b></p>"
        if said.accuracy
        else '<p class="soft">None of them was drawn at random, so they say nothing of all images.'
    )
    return (
        f'<h2>What people said</h2>{damaged}<p class="soft">{what}</p>{sample}'
        f"{_runs(said.by_run)}{_confusions(said.confusions)}"
    )


def _runs(by_run: dict[str, Accuracy]) -> str:
    shown = list(by_run.items())[:RUNS_SHOWN]
    rows = (
        f"<tr><td>{escape(run_id or 'of no known run')}{number(one.share, '.1%')}"
        f"{number(one.interval[0], '.1%')}{number(one.interval[1], '.1%')}{number(one.images, ',')}"
        for run_id, one in shown
    )
    head = f"<tr><th>run<th>accuracy<th>from<th>to ({CONFIDENCE:.0%})<th>images"
    return table("Accuracy of runs", rows, head)


def _confusions(found: Iterable[Confusion]) -> str:
    rows = (
        f"<tr><td>{escape(one.proposed)}<td>{escape(one.label or '(none of the classes)')}"
        f"{number(one.images, ',')}"
        for one in list(found)[:CONFUSIONS_SHOWN]
    )
    return table("Where people disagreed", rows, "<tr><th>proposed<th>is really<th>images")
