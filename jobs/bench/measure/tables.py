"""Tables for people, in Markdown, so that they can be pasted."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.bench.campaigns.growth import Step
from jobs.bench.contest.rounds import Results, goals

NOTES = """\
images/s: from workers that hold their model to written Parquet; with start: the whole process.
Ray's example and Daft may read images before their models are loaded; that time is not counted.
Without torchvision, transformers preprocesses with Pillow, as here unless the versions name it."""


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


def peers_table(results: Results) -> str:
    """Speeds, our lead, and whether the labels are the same; then the goals."""
    rows = []
    for one in results.standings:
        mine = [s for s in results.standings if s.is_ours and s.dtype == one.dtype]
        lead = [f"{s.images_per_second / one.images_per_second:.2f}" for s in mine]
        rows.append(
            (
                one.name,
                one.dtype,
                f"{one.images_per_second:.1f}",
                " / ".join(lead),
                f"{one.images_per_second_with_start:.1f}",
                f"{1000 * one.cpu_seconds_per_image:.0f}",
                f"{one.agreement:.1%}",
            )
        )
    head = ("", "dtype", "images/s", "ours / it", "with start", "CPU ms/image", "same labels")
    lines = [table(head, rows)]
    lines += [f"did not run: {name}: {why}" for name, why in results.failed.items()]
    lines += [
        f"{goal['dtype']}: {goal['ratio']:.2f}x {goal['against']}, goal {goal['goal']:g}x: "
        f"{'reached' if goal['reached'] else 'missed'}"
        for goal in goals(results.standings)
    ]
    return "\n".join(lines)


def growth_table(steps: Sequence[Step]) -> str:
    """Speed and memory of runs of growing size, and along the largest."""
    rows = [
        (
            f"{step.images:,}",
            f"{step.images_per_second:.0f}",
            f"{step.images_per_second_with_start:.0f}",
            f"{step.driver_mib:.0f}",
            f"{step.workers_mib:.0f}",
            f"{1000 * step.cpu_seconds_per_image:.1f}",
        )
        for step in steps
    ]
    head = ("images", "images/s", "with start", "driver MiB", "workers MiB", "CPU ms/image")
    along = [
        (
            f"{point.images:,.0f}",
            f"{point.images_per_second:.0f}",
            f"{point.driver_mib:.0f}",
            f"{point.workers_mib:.0f}",
        )
        for point in steps[-1].points
    ]
    titles = ("images done", "images/s since", "driver MiB", "workers MiB")
    return f"{table(head, rows)}\n\nalong the last run:\n\n{table(titles, along)}"
