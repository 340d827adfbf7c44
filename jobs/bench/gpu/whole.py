"""The pipeline on the card: what each stage can do, what the run reaches, and who waits."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from jobs.bench.ceilings.end_to_end import Bench, bench
from jobs.bench.gpu.card import ON_GPU
from jobs.bench.gpu.utilisation import Utilisation
from jobs.bench.measure import machine
from jobs.bench.synthetic.images import write_images
from jobs.bench.synthetic.models import write_model
from pipeline.contract.spec import (
    ComputeSpec,
    DecodeMode,
    Dtype,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.stages.infer.nvjpeg import why_not

DISTINCT, NAMES = (2_000, 60_000) if ON_GPU else (24, 48)
"""Photographs, and the names under which they are linked: making more would take the time."""
PEERS_NAMES = 6_000 if ON_GPU else 24
MODEL = "cvt-13" if ON_GPU else "small"
DTYPE: Dtype = "bfloat16" if ON_GPU else "float32"
GOAL = 0.85
"""Share of the smaller ceiling."""


@dataclass(frozen=True)
class Whole:
    """What was measured, and how busy the machine was meanwhile."""

    bench: Bench
    cores: float | None
    cards: float | None
    on_card: Bench | None
    """The run with ``--decode gpu``; None where that is not possible."""
    why_not: str | None
    """What stands in its way."""


def write_photographs(directory: Path, names: int = NAMES) -> Path:
    """Photographs of 500x375 under many names, made by all cores."""
    distinct, named = directory / "distinct", directory / "photographs"
    cores = machine.cores()
    starts = range(0, DISTINCT, -(-DISTINCT // cores))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as processes:
        list(processes.map(_write_some, [distinct] * len(starts), starts))
    named.mkdir()
    files = sorted(distinct.glob("*/*.jpg"))
    for number in range(min(names, NAMES)):
        os.link(files[number % len(files)], named / f"{number:06d}.jpg")
    return named


def _write_some(directory: Path, start: int) -> None:
    share = min(-(-DISTINCT // machine.cores()), DISTINCT - start)
    write_images(directory / f"{start:06d}", share, first=start)


def run_spec(
    photographs: Path, scratch: Path, decode: DecodeMode = "fast", **compute: object
) -> RunSpec:
    """A run over the photographs, on the card."""
    model = write_model(scratch / "model", MODEL)
    return RunSpec(
        inputs=InputSpec(uris=(str(photographs),), format="images"),
        model=ModelSpec(source=str(model), dtype=DTYPE, decode=decode),
        output=OutputSpec(uri=str(scratch / "out"), top_k=5),
        compute=ComputeSpec(**compute),  # type: ignore[arg-type]
        policy=PolicySpec(),
    )


def whole(photographs: Path, scratch: Path) -> Whole:
    """Measure the ceilings of decoding and of the network, and a run from start to end; where the
    card decodes JPEG files, also one that has it do so."""
    spec = run_spec(photographs, scratch)
    stages = bench(spec, NAMES, ("decode", "model"), scratch)
    with Utilisation() as busy:
        run = bench(spec, NAMES, ("end-to-end",), scratch)
    moment = busy.busiest()
    both = Bench(
        stages=stages.stages, ceilings=stages.ceilings, whole=run.whole, cluster=run.cluster
    )
    cores, cards = (moment.cores, moment.cards) if moment else (None, None)
    reason = why_not()
    on_card = None if reason else _on_card(photographs, scratch / "on_card")
    return Whole(both, cores, cards, on_card, reason)


def _on_card(photographs: Path, scratch: Path) -> Bench:
    scratch.mkdir()
    return bench(run_spec(photographs, scratch, "gpu"), NAMES, ("end-to-end",), scratch)
