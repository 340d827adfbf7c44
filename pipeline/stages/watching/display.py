"""How far a run is, for somebody at a terminal: a bar, a line, and a dim line of the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pipeline.stages.watching.reading import Reading


@contextmanager
def display() -> Iterator[Callable[[Reading], None]]:
    """Show readings at the bottom of the terminal, in place of the one before; what is logged
    meanwhile scrolls above. Gone at the end, as the closing summary says more."""
    console = Console(stderr=True, highlight=False)
    with Live(console=console, transient=True, redirect_stdout=False) as live:
        yield lambda reading: live.update(picture(reading), refresh=True)


def picture(reading: Reading) -> RenderableType:
    """Two to four lines, each cut to the width of the terminal."""
    lines = Table.grid(expand=True)
    lines.add_column(no_wrap=True, overflow="ellipsis")
    if reading.expected:
        total = reading.expected + reading.done
        lines.add_row(ProgressBar(total=total, completed=reading.all_images))
    lines.add_row(reading.images)
    if reading.pool:
        lines.add_row(reading.pool)
    lines.add_row(reading.stages, style="dim")
    return lines
