"""The speed on one INPUT as a share of that on another, say a slow store and the local disk."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.bench.ceilings.end_to_end import DECODE_IMAGES
from jobs.bench.ceilings.stages import run_stage, stages_of
from jobs.bench.measure.fresh_process import measure_apart
from jobs.bench.measure.inputs import sample, work_of
from pipeline.contract.spec import RunSpec
from pipeline.stages.cluster.ray_session import ray_session


@dataclass(frozen=True, kw_only=True)
class Side:
    """One INPUT; medians over the rounds."""

    uri: str
    decode: float
    """Images/s of fetch and decode alone, on all CPUs."""
    end_to_end: float


def compare(
    spec: RunSpec,
    uris: Sequence[str],
    images: int,
    rounds: int,
    scratch: Path,
    decode_images: int = DECODE_IMAGES,
) -> list[Side]:
    """Measure every INPUT ``rounds`` times, in turns.

    Args:
        spec: the run; its INPUT is replaced.
        uris: what is compared.
        images: how many of each to take.
        rounds: how often.
        scratch: a local directory.
        decode_images: at least this many are decoded, repeatedly if need be, in tasks as large as
            those of a run over this many.
    """
    decode: dict[str, list[float]] = {uri: [] for uri in uris}
    whole: dict[str, list[float]] = {uri: [] for uri in uris}
    for number in range(rounds):
        for index, uri in enumerate(uris):
            mine = replace(spec, inputs=replace(spec.inputs, uris=(uri,)))
            decode[uri].append(_decode(mine, images, decode_images))
            output = replace(mine.output, uri=f"{spec.output.uri}/{number}-{index}")
            run = sample(replace(mine, output=output), images, scratch)
            whole[uri].append(measure_apart(run).steady)
    return [
        Side(
            uri=uri,
            decode=statistics.median(decode[uri]),
            end_to_end=statistics.median(whole[uri]),
        )
        for uri in uris
    ]


def _decode(spec: RunSpec, images: int, at_least: int) -> float:
    with ray_session(spec.compute) as allocation:
        work = work_of(spec.inputs, images, at_least)
        stages = stages_of(spec, allocation)
        return run_stage("decode", stages, work, spec.compute).images_per_second
