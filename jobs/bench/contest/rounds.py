"""Our pipeline and its peers on the same images with the same weights, in turns.

Every contestant runs in a fresh process with all cores of the machine. Its speed is that of the
time from the moment when its workers hold the model to its written Parquet; what happens once
(imports, Ray's start, loading the model) is stated beside it.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import pyarrow.dataset as ds
import torch

from jobs.bench.contest.peers.entry import Device, Entry
from jobs.bench.measure import machine
from jobs.bench.measure.fresh_process import call, measure_apart
from pipeline.contract.errors import RunError
from pipeline.contract.spec import Dtype, RunSpec, Runtime

PEERS = {
    "Ray Data example": "ray_data",
    "torch DataLoader": "dataloader",
    "transformers pipeline": "hf_pipeline",
    "Daft": "daft_udf",
}
RAY_EXAMPLE = "Ray Data example"
GPU_PEERS = {"Ray Data, two stages": "ray_data_stages"} | PEERS
"""On a card, where it matters who prepares the images."""
PEER_BATCH: Mapping[Device, int] = {"cpu": 8, "cuda": 128}
"""The fastest for transformers' CvT on CPUs: larger ones are some per cent slower. On an H100 it is
within 8 % of 512, the fastest, and the cores, which are the limit there, fill it sooner."""
GOALS: Mapping[Dtype, float] = {"float32": 1.45, "bfloat16": 1.3}
"""Times the best peer, end to end, on CPUs."""
GOAL_RAY_EXAMPLE = 2.5
GPU_GOAL = 1.0
"""Times each peer, on a card."""

log = logging.getLogger(__name__)

Labels = dict[str, str]
"""Best label by the image's file name."""


@dataclass(frozen=True, kw_only=True)
class Lap:
    """One contestant in one round."""

    name: str
    dtype: Dtype
    is_ours: bool
    images: int
    processing_seconds: float
    wall_seconds: float
    cpu_seconds: float
    labels: Labels

    @property
    def images_per_second(self) -> float:
        return self.images / self.processing_seconds


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A contestant after all rounds; medians."""

    name: str
    dtype: Dtype
    is_ours: bool
    images_per_second: float
    images_per_second_with_start: float
    cpu_seconds_per_image: float
    """Of the whole process, start and all."""
    agreement: float
    """Share of the images with the same best label as our first contestant of this dtype."""


@dataclass(frozen=True)
class Results:
    """Everything that the rounds gave."""

    standings: list[Standing]
    failed: dict[str, str]
    """Contestants that failed, and why."""
    images: int
    rounds: int
    device: Device = "cpu"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"goals": goals(self.standings, self.device)}


def contest_device(spec: RunSpec) -> Device:
    """Where a run of this spec would compute on this machine, so that its peers do the same."""
    return "cuda" if spec.compute.num_gpus != 0 and torch.cuda.is_available() else "cpu"


def our_contestants(spec: RunSpec, device: Device = "cpu") -> dict[str, RunSpec]:
    """Our pipeline with every installed runtime that supports the device; torch first."""
    runtimes: list[Runtime] = ["torch"]
    if device == "cpu" and find_spec("openvino") is not None:
        runtimes.append("openvino")
    return {
        f"ours, {name}": replace(spec, model=replace(spec.model, runtime=name)) for name in runtimes
    }


Contestant = Callable[[Path], Lap]
"""Runs in an empty directory."""


def contest(
    ours: Mapping[str, RunSpec],
    images: Path,
    model: Path,
    dtypes: Sequence[Dtype],
    rounds: int,
    device: Device = "cpu",
) -> Results:
    """Let everyone run ``rounds`` times, in turns. A contestant that fails is named with the reason
    and does not run again; the others do.

    Args:
        ours: our contestants by name; labels are compared with those of the first.
        images: directory of JPEG files.
        model: Hugging Face directory.
        dtypes: each of the contestants runs once in each.
        rounds: how often.
        device: "cuda" gives everyone the first card, and the cores beside it.
    """
    laps: list[Lap] = []
    failed: dict[str, str] = {}
    number = len(list(images.iterdir()))
    for _ in range(rounds):
        for dtype in dtypes:
            for name, run in _contestants(ours, images, model, dtype, device):
                key = f"{name}, {dtype}"
                if key in failed:
                    continue
                try:
                    with tempfile.TemporaryDirectory(prefix="bench-") as work:
                        laps.append(run(Path(work)))
                    log.info("%s: %.1f images/s", key, laps[-1].images_per_second)
                except RunError as error:
                    failed[key] = str(error)
    return Results(standings(laps), failed, number, rounds, device)


def _contestants(
    ours: Mapping[str, RunSpec], images: Path, model: Path, dtype: Dtype, device: Device
) -> Iterator[tuple[str, Contestant]]:
    for name, spec in ours.items():
        mine = _with_source(spec, images, model, dtype, device)
        yield name, lambda work, name=name, mine=mine: run_ours(name, dtype, mine, work)  # type: ignore[misc]
    for name, module in (GPU_PEERS if device == "cuda" else PEERS).items():
        batch = PEER_BATCH[device]
        entry = Entry(str(images), str(model), "", dtype, machine.cores(), batch, device)
        yield name, lambda work, n=name, m=module, e=entry: run_peer(n, m, e, work)  # type: ignore[misc]


def _with_source(spec: RunSpec, images: Path, model: Path, dtype: Dtype, device: Device) -> RunSpec:
    return replace(
        spec,
        inputs=replace(spec.inputs, uris=(str(images),), format="images"),
        model=replace(spec.model, source=str(model), dtype=dtype),
        compute=replace(spec.compute, num_gpus=1.0 if device == "cuda" else 0.0),
    )


def run_ours(name: str, dtype: Dtype, spec: RunSpec, work: Path) -> Lap:
    """One run of the pipeline in a fresh process."""
    output = work / "out"
    measured = measure_apart(replace(spec, output=replace(spec.output, uri=str(output))))
    return Lap(
        name=name,
        dtype=dtype,
        is_ours=True,
        images=measured.images,
        processing_seconds=measured.processing_seconds,
        wall_seconds=measured.wall_seconds,
        cpu_seconds=measured.cpu_seconds,
        labels=read_labels(output / "data"),
    )


def run_peer(name: str, module: str, entry: Entry, work: Path) -> Lap:
    """One run of a peer's script in a fresh process.

    Raises:
        RunError: it failed, or left out images.
    """
    entry = replace(entry, work=str(work))
    arguments = [entry.images, entry.model, entry.work, "--dtype", entry.dtype]
    options = ["--cores", str(entry.cores), "--batch-size", str(entry.batch_size)]
    options += ["--device", entry.device]
    wall, sampler = call([f"jobs.bench.contest.peers.{module}", *arguments, *options], work / "log")
    labels = read_labels(Path(entry.output))
    if len(labels) != len(list(Path(entry.images).iterdir())):
        raise RunError(f"{name} gave {len(labels)} rows, not one for every image")
    return Lap(
        name=name,
        dtype=entry.dtype,  # type: ignore[arg-type]
        is_ours=False,
        images=len(labels),
        processing_seconds=entry.ended_at() - entry.ready_at(),
        wall_seconds=wall,
        cpu_seconds=sampler.cpu_seconds,
        labels=labels,
    )


def read_labels(directory: Path) -> Labels:
    """What a contestant wrote, however it spells a URI."""
    table = ds.dataset(directory, format="parquet").to_table(columns=["uri", "label"])
    names = [PurePosixPath(uri).name for uri in table["uri"].to_pylist()]
    return dict(zip(names, table["label"].to_pylist(), strict=True))


def standings(laps: Sequence[Lap]) -> list[Standing]:
    """One line per contestant and dtype, in the order of their first laps."""
    grouped: defaultdict[tuple[str, Dtype], list[Lap]] = defaultdict(list)
    for lap in laps:
        grouped[lap.name, lap.dtype].append(lap)
    yardsticks: dict[Dtype, Labels] = {}
    for lap in laps:
        if lap.is_ours:
            yardsticks.setdefault(lap.dtype, lap.labels)
    return [
        Standing(
            name=name,
            dtype=dtype,
            is_ours=group[0].is_ours,
            images_per_second=statistics.median(g.images_per_second for g in group),
            images_per_second_with_start=statistics.median(
                g.images / g.wall_seconds for g in group
            ),
            cpu_seconds_per_image=statistics.median(g.cpu_seconds / g.images for g in group),
            agreement=agreement(group[0].labels, yardsticks.get(dtype, {})),
        )
        for (name, dtype), group in grouped.items()
    ]


def agreement(labels: Labels, yardstick: Labels) -> float:
    """Share of the yardstick's images that have the same label."""
    same = sum(labels.get(name) == label for name, label in yardstick.items())
    return same / max(len(yardstick), 1)


def goals(table: Sequence[Standing], device: Device = "cpu") -> list[dict[str, Any]]:
    """Ours against the best peer and against Ray's example, for every dtype that both ran."""
    found = []
    best_peer, ray_example = GOALS, GOAL_RAY_EXAMPLE
    if device == "cuda":
        best_peer, ray_example = dict.fromkeys(get_args(Dtype), GPU_GOAL), GPU_GOAL
    for dtype, wanted in best_peer.items():
        ours = [s.images_per_second for s in table if s.is_ours and s.dtype == dtype]
        peers = {s.name: s.images_per_second for s in table if not s.is_ours and s.dtype == dtype}
        if not (ours and peers):
            continue
        best = max(peers, key=lambda name: peers[name])
        found.append(_goal(dtype, f"the best peer ({best})", max(ours) / peers[best], wanted))
        if RAY_EXAMPLE in peers:
            ratio = max(ours) / peers[RAY_EXAMPLE]
            found.append(_goal(dtype, f"the {RAY_EXAMPLE}", ratio, ray_example))
    return found


def _goal(dtype: Dtype, rival: str, ratio: float, wanted: float) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "against": rival,
        "ratio": ratio,
        "goal": wanted,
        "reached": ratio >= wanted,
    }
