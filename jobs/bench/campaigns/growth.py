"""Whether speed and memory stay the same while a run grows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.measure.fresh_process import Measured, measure_apart
from jobs.bench.measure.processes import Memory
from jobs.bench.measure.rates import time_of
from jobs.bench.synthetic.images import write_images
from pipeline.contract.spec import RunSpec

DISTINCT = 100
SIDE = 64
POINTS = 10
SAMPLE_SECONDS = 1.0
"""A span shorter than the time between two samples uses the sample before it."""
MIB = 2**20


@dataclass(frozen=True)
class Point:
    """A moment of a run."""

    images: float
    """Done so far."""
    images_per_second: float
    """Since the point before."""
    driver_mib: float
    """Own memory (not shared with others), the largest since the point before."""
    workers_mib: float
    """Of all Ray workers together."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A whole run; memory is its largest."""

    images: int
    images_per_second: float
    images_per_second_with_start: float
    cpu_seconds_per_image: float
    driver_mib: float
    workers_mib: float
    points: list[Point]


def write_small_images(directory: Path, number: int) -> Path:
    """``number`` JPEG files of a few kB: 100 different ones, and links to them."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        originals = write_images(Path(scratch), min(DISTINCT, number), size=(SIDE, SIDE))
        directory.mkdir()
        for index in range(number):
            folder = directory / f"{index // 1000:04d}"
            folder.mkdir(exist_ok=True)
            _link(originals[index % len(originals)], folder / f"{index:07d}.jpg")
    return directory


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def grow(spec: RunSpec, sizes: Sequence[int], directory: Path) -> list[Step]:
    """Run over made-up images, in a fresh process for every size."""
    steps = []
    for size in sizes:
        images = write_small_images(directory / f"images-{size}", size)
        inputs = replace(spec.inputs, uris=(str(images),), format="images")
        steps.append(step(replace(spec, inputs=inputs), str(directory / f"out-{size}")))
        shutil.rmtree(images)
    return steps


def step(spec: RunSpec, output: str) -> Step:
    """One run over whatever the spec names."""
    measured = measure_apart(replace(spec, output=replace(spec.output, uri=output)))
    return Step(
        images=measured.images,
        images_per_second=measured.steady,
        images_per_second_with_start=measured.wall_rate,
        cpu_seconds_per_image=measured.cpu_seconds / measured.images,
        driver_mib=_most([m.driver for m in measured.memory]),
        workers_mib=_most([m.workers for m in measured.memory]),
        points=points(measured),
    )


def points(measured: Measured, number: int = POINTS) -> list[Point]:
    """The run cut into ``number`` parts with the same number of images."""
    goals = np.linspace(0, measured.curve[-1][1], number + 1)
    times = [measured.ready, *[time_of(measured.curve, goal) for goal in goals[1:]]]
    spans = zip(goals[1:], np.diff(goals), times, times[1:], strict=False)
    return [
        _point(measured.memory, float(done), float(images), start, stop)
        for done, images, start, stop in spans
    ]


def _point(
    memory: Sequence[Memory], done: float, images: float, start: float, stop: float
) -> Point:
    inside = [m for m in memory if start - SAMPLE_SECONDS <= m.when <= stop]
    return Point(
        images=done,
        images_per_second=images / max(stop - start, 1e-3),
        driver_mib=_most([m.driver for m in inside]),
        workers_mib=_most([m.workers for m in inside]),
    )


def _most(values: Sequence[int]) -> float:
    return max(values, default=0) / MIB


def ratios(steps: Sequence[Step]) -> dict[str, float]:
    """The last run's figures over the first's."""
    first, last = asdict(steps[0]), asdict(steps[-1])
    names = ("images_per_second", "cpu_seconds_per_image", "driver_mib", "workers_mib")
    return {name: last[name] / first[name] for name in names if first[name]}


def to_dict(steps: Sequence[Step]) -> dict[str, Any]:
    """For a JSON file."""
    return {"runs": [asdict(step) for step in steps], "last_over_first": ratios(steps)}
