"""A run in a notebook: an excerpt of its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from pipeline.contract.errors import JobError
from pipeline.contract.manifest import Manifest
from pipeline.monitoring.page import fragment, lines
from pipeline.monitoring.report import sheet_of, tiles


def card(manifest: Manifest, pages: Iterable[str], places: Mapping[str, str]) -> str:
    """A fragment of HTML.

    Args:
        pages: the report of the run, then those of earlier runs; the first with pictures counts.
        places: where something is, by what it is.
    """
    failures = (f"{number:,} {code}" for code, number in manifest.failures.items())
    facts = {**({"failed": ", ".join(failures)} if manifest.failures else {}), **places}
    return fragment(f"Run {manifest.run_id}", [tiles(manifest), lines(facts), _pictures(pages)])


def _pictures(pages: Iterable[str]) -> str:
    try:
        return next(filter(None, map(sheet_of, pages)), "")
    except JobError as error:
        return f"<div>no pictures: {escape(str(error))}</div>"
