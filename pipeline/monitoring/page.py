"""What the pages that a person looks at have in common: one self-contained HTML file each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2430; --soft: #566070; --line: #e4e7ec;
        --bar: #3b6fd4; --bad: #b3401a; --good: #1a7f4b }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --ink: #e8ebf0; --soft: #a6b0be; --line: #38414e; --bar: #8fb4ff;
          --bad: #ff9e7a; --good: #6fd3a0 }
}
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 62rem;
       margin: 2.5rem auto; padding: 0 clamp(.75rem, 4vw, 1.5rem); background: var(--page) }
h1, p { overflow-wrap: anywhere } h1 { font-size: 1.5rem; margin: 0 }
h2 { font-size: 1.05rem; margin: 2.5rem 0 .75rem }
.soft, figcaption { color: var(--soft) } .soft { margin: .25rem 0 1.5rem }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; min-width: 7rem }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
.bad b { color: var(--bad) }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .2rem .75rem .2rem 0; vertical-align: top;
         border-bottom: 1px solid var(--line) }
td { overflow-wrap: anywhere } th { white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.wide { width: 60% }
table:has(td.number:nth-child(2)) th:nth-child(2),
table:has(td.number:nth-child(3)) th:nth-child(3),
table:has(td.number:nth-child(4)) th:nth-child(4),
table:has(td.number:nth-child(5)) th:nth-child(5),
table:has(td.number:nth-child(6)) th:nth-child(6) { text-align: right }
.bar { background: var(--bar); height: .7rem; border-radius: .2rem; margin-top: .4rem;
       min-width: 2px } .bad .bar { background: var(--bad) }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .75rem }
figure { margin: 0 } figure img { width: 100%; border-radius: .3rem; image-rendering: auto;
         background: var(--line); display: block }
figcaption { font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere }
figcaption b { color: var(--ink); font-weight: 600 }
tr.alarm td { color: var(--bad); font-weight: 600 }
code { font-size: .85em; white-space: nowrap }
.scroll { overflow-x: auto }
.matrix { width: auto; font-size: .85rem } .matrix td { text-align: right; padding: .2rem .4rem;
  min-width: 2.2rem; border: 1px solid var(--line); font-variant-numeric: tabular-nums }
.matrix th[scope=col] { vertical-align: bottom } .matrix span { writing-mode: vertical-rl;
  transform: rotate(180deg); max-height: 9rem; overflow: hidden }
.matrix .hit { --of: var(--good) } .matrix .miss { --of: var(--bad) }
.matrix td[style] {
  background: color-mix(in srgb, var(--of) calc(var(--share) * 45%), transparent) }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(16rem, 20rem)) }
svg { width: 100%; display: block; fill: none; stroke: var(--bar); stroke-width: 2 }
svg text { fill: var(--soft); stroke: none; font-size: 11px }
svg rect { fill: var(--bar); stroke: none }
svg .axis, svg .ideal { stroke: var(--soft); stroke-width: 1 } svg .ideal { stroke-dasharray: 2 3 }
svg .train_loss { stroke-dasharray: 5 4; stroke: var(--soft) }
@media (max-width: 40rem) {
  th { white-space: normal; overflow-wrap: anywhere } td, th { padding-right: .4rem }
  td.number { white-space: normal }
  table:not(.matrix) { font-size: .85rem } code { white-space: normal }
}
"""

_FRAGMENT_STYLE = """
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


def page(title: str, below: str, sections: Iterable[str]) -> str:
    """A whole page.

    Args:
        below: a line under the title.
        sections: HTML.
    """
    title, below = escape(title), escape(below)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{_STYLE}</style><main><h1>{title}</h1><p class="soft">{below}</p>'
        f"{''.join(sections)}</main></html>\n"
    )


def fragment(title: str, sections: Iterable[str]) -> str:
    """A part of somebody else's page, such as the cell of a notebook, to the rest of which it
    brings no style.

    Args:
        sections: HTML.
    """
    return (
        f'<div class="cvt-run"><style>{_FRAGMENT_STYLE}</style><b>{escape(title)}</b>'
        f"{''.join(sections)}</div>"
    )


def lines(found: Mapping[str, str]) -> str:
    """Names and values, one a line, for a ``fragment``."""
    return "".join(
        f"<div>{name}: <code>{escape(text)}</code></div>" for name, text in found.items()
    )


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """Names and values, large."""
    shown = (
        f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in values
    )
    return f'<div class="tiles">{"".join(shown)}</div>'


def number(value: float | None, form: str) -> str:
    """A cell of a table; empty for None."""
    return f'<td class="number">{"" if value is None else format(value, form)}'


def table(title: str, rows: Iterable[str], head: str = "") -> str:
    """A section of rows, which are HTML; nothing if there are none."""
    body = "".join(rows)
    return f"<h2>{title}</h2><table>{head}{body}</table>" if body else ""


def extent(most: int, total: int, file: str = "") -> str:
    """What follows the title of at most so many rows: how many of all they are, and which file has
    the rest. Without a file, nothing if they are all."""
    shown = min(most, total)
    if file:
        return f" ({shown:,} of {total:,} in {file})"
    return f" ({shown:,} of {total:,})" if shown < total else ""


def sheet(title: str, figures: Iterable[str], kind: str = "sheet") -> str:
    """A section of pictures; nothing if there are none."""
    body = "".join(figures)
    return f'<h2>{title}</h2><div class="{kind}">{body}</div>' if body else ""


def figure(jpeg: str, caption: str) -> str:
    """A picture of a ``sheet``.

    Args:
        jpeg: the file in base 64.
        caption: HTML.
    """
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{escape(jpeg)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def tail(uri: str) -> str:
    """What a person calls an image: the end of its name."""
    return uri.replace("#", "/").rsplit("/", 1)[-1]


def facts(title: str, found: Mapping[str, Any]) -> str:
    """Names and values as a table, nested ones by dotted name; nothing if there are none."""
    return table(title, (f"<tr><td>{escape(n)}<td>{escape(t)}" for n, t in _flat(found)))


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in (None, 0):
            yield f"{prefix}{name}", str(value)
