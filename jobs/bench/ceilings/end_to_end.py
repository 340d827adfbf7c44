"""Stage ceilings, the whole run, and what they say about each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from jobs.bench.ceilings.stages import Stage, StageName, run_stage, stages_of
from jobs.bench.ceilings.verdict import Ceilings
from jobs.bench.measure import machine
from jobs.bench.measure.fresh_process import Measured, measure_apart
from jobs.bench.measure.inputs import sample, work_of
from jobs.bench.measure.tables import table
from pipeline.contract.spec import RunSpec
from pipeline.stages.allocation import Allocation
from pipeline.stages.cluster.ray_session import ray_session

STAGES: tuple[StageName, ...] = ("null", "decode", "model")
DECODE_IMAGES = 512
"""At least this many per CPU, or a stage is over before all of its workers are busy."""
MODEL_BATCHES = 12
"""At least this many per actor."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured; None for what was not asked for."""

    stages: dict[str, Stage]
    ceilings: Ceilings | None
    whole: Measured | None
    cluster: dict[str, float]

    @property
    def share_of_expected(self) -> float | None:
        """The whole run's steady speed as a share of what the ceilings allow."""
        if self.whole is None or self.ceilings is None:
            return None
        return self.whole.steady / self.ceilings.expected

    def to_dict(self) -> dict[str, Any]:
        ceilings = self.ceilings and {
            "expected_images_per_second": self.ceilings.expected,
            "bottleneck": self.ceilings.bottleneck(),
            **asdict(self.ceilings),
        }
        return {
            "cluster": self.cluster,
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            "ceilings": ceilings,
            "end_to_end": self.whole and self.whole.summary(),
            "share_of_expected": self.share_of_expected,
        }


def bench(spec: RunSpec, images: int, stages: Iterable[str], scratch: Path) -> Bench:
    """Measure the chosen stages: any of "null", "decode", "model" and "end-to-end".

    Args:
        spec: as for a run; its output is written and should be empty.
        images: how many of the INPUT to take.
        stages: names.
        scratch: a local directory.
    """
    names = set(stages)
    found: dict[str, Stage] = {}
    with ray_session(spec.compute) as room:
        resources = machine.cluster()
        if wanted := [name for name in STAGES if name in names]:
            found = _run_stages(spec, images, wanted, room)
    whole = measure_apart(sample(spec, images, scratch)) if "end-to-end" in names else None
    ceilings = None
    if {"decode", "model"} <= found.keys():
        ceilings = ceilings_of(found["decode"], found["model"], room, resources["cpus"])
    return Bench(stages=found, ceilings=ceilings, whole=whole, cluster=resources)


def _run_stages(
    spec: RunSpec, images: int, names: Sequence[StageName], room: Allocation
) -> dict[str, Stage]:
    stages = stages_of(spec, room)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    least = {
        "decode": DECODE_IMAGES * cpus,
        "null": DECODE_IMAGES * cpus,
        "model": MODEL_BATCHES * room.num_actors * room.batch_size,
    }
    return {
        name: run_stage(name, stages, work_of(spec.inputs, images, least[name]), spec.compute)
        for name in names
    }


def ceilings_of(decode: Stage, model: Stage, room: Allocation, cpus: float) -> Ceilings:
    """Decode was measured on all CPUs or, next to actors on GPUs, on those that they leave."""
    if not room.on_gpu:
        return Ceilings(
            decode=decode.images_per_second,
            model=model.images_per_second,
            decode_cores=cpus,
            decode_cpu=decode.cpu_seconds_per_image,
            model_cpu=model.cpu_seconds_per_image,
        )
    return Ceilings(
        decode=decode.images_per_second,
        model=model.images_per_second,
        decode_cores=round(room.decode_tasks * room.decode_cpus, 1),
        gpus=room.num_actors * room.actor_gpus,
    )


def report(measured: Bench) -> str:
    """The table, the formula and the verdict as text."""
    rows = [
        (
            _TITLES[name],
            stage.images,
            f"{stage.images_per_second:.1f}",
            f"{1000 * stage.cpu_seconds_per_image:.1f}",
            "",
        )
        for name, stage in measured.stages.items()
    ]
    if whole := measured.whole:
        cpu = f"{1000 * whole.cpu_seconds / whole.images:.1f}"
        rows.append(
            ("end to end", whole.images, f"{whole.steady:.1f}", cpu, f"{whole.wall_rate:.1f}")
        )
    head = ("stage", "images", "images/s", "CPU ms/image", "with start")
    lines = [table(head, rows)]
    if ceilings := measured.ceilings:
        formula = "1 / (1/model + 1/decode)" if ceilings.shared else "min(model, decode)"
        lines.append(f"expected: {formula} = {ceilings.expected:.1f} images/s")
    if share := measured.share_of_expected:
        lines.append(f"end to end reaches {share:.0%} of it (goal: 90%)")
    if ceilings := measured.ceilings:
        lines.append(ceilings.bottleneck())
    return "\n".join(lines)


_TITLES = {
    "null": "Ray alone (null decode, null model)",
    "decode": "decode alone (null model)",
    "model": "model alone (null decode)",
}
