"""The contest as a table for people."""

from __future__ import annotations

from jobs.bench.contest.rounds import Results, goals
from jobs.bench.measure.tables import table

NOTES = """\
images/s: from the moment when workers hold their model to written Parquet; with start: all of it.
Daft, and Ray's example without a GPU, may read images before their models are loaded; that time is
not counted.
Without torchvision, transformers preprocesses with Pillow, as here unless the versions name it."""


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
        for goal in goals(results.standings, results.device)
    ]
    return "\n".join(lines)
