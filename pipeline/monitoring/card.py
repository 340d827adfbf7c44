"""A run in a notebook: an excerpt of its report, which brings no style to the rest of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from pipeline.contract.errors import JobError
from pipeline.contract.manifest import Manifest
from pipeline.monitoring.report import sheet_of, tiles

_STYLE = """
.cvt-run .tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: .5rem 0 }
.cvt-run .tile { border: 1px solid #8886; border-radius: .5rem; padding: .4rem .8rem }
.cvt-run .tile b { display: block; font-size: 1.3rem }
.cvt-run .bad b { color: #c2410c }
.cvt-run .sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr));
                  gap: .5rem; max-height: 30rem; overflow: auto }
.cvt-run figure { margin: 0 }
.cvt-run figure img { width: 100%; border-radius: .3rem; display: block }
.cvt-run figcaption { font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere }
"""


def card(manifest: Manifest, pages: Iterable[str], places: Mapping[str, str]) -> str:
    """A fragment of HTML.

    Args:
        pages: the report of the run, then those of earlier runs; the first with pictures counts.
        places: where something is, by what it is.
    """
    failures = (f"{number:,} {code}" for code, number in manifest.failures.items())
    facts = {**({"failed": ", ".join(failures)} if manifest.failures else {}), **places}
    lines = "".join(
        f"<div>{name}: <code>{escape(text)}</code></div>" for name, text in facts.items()
    )
    return (
        f'<div class="cvt-run"><style>{_STYLE}</style><b>Run {escape(manifest.run_id)}</b>'
        f"{tiles(manifest)}{lines}{_pictures(pages)}</div>"
    )


def _pictures(pages: Iterable[str]) -> str:
    try:
        return next(filter(None, map(sheet_of, pages)), "")
    except JobError as error:
        return f"<div>no pictures: {escape(str(error))}</div>"
