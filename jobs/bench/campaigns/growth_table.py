"""The growth campaign as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.bench.campaigns.growth import Step
from jobs.bench.measure.tables import table


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
