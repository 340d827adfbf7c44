"""Tables for people, in Markdown, so that they can be pasted."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown with aligned columns, the first to the left, the others to the right."""
    cells = [list(map(str, head)), *[list(map(str, row)) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [_line(row, widths) for row in cells]
    rules = [f"{'-' * width}:" if i else "-" * (width + 1) for i, width in enumerate(widths)]
    return "\n".join([lines[0], f"|{'|'.join(f' {rule}' for rule in rules)}|", *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1] + 1), *[f"{cell.rjust(width)} " for cell, width in others]]
    return f"| {'| '.join(cells)}|"
