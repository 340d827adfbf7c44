"""One run in a process of its own, so that nothing is warm or in memory from an earlier one.

    python -m jobs.bench.measure.fresh_process SPEC.json RESULT.json

A thread watches the run's progress. The rest of this module is for the process that started it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import ray

from jobs.bench.measure import machine
from jobs.bench.measure.processes import Memory, Sampler
from jobs.bench.measure.rates import steady_rate
from pipeline.contract.errors import RunError, one_line
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import RunSpec
from pipeline.runs.python.config import spec_from_config
from pipeline.runs.run import run
from pipeline.stages.watching import progress

START_POLL_SECONDS = 0.2
POLL_SECONDS = 1.0
"""Once the first image is out: watching costs CPU time, which the peers do not spend."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run that closed. Moments are seconds since the epoch."""

    started: float
    connected: float
    """Ray was up."""
    ready: float
    """Every actor held its model and had checked itself."""
    ended: float
    counts: dict[str, int]
    timings: dict[str, float]
    versions: dict[str, str]
    cluster: dict[str, float]
    by_node: dict[str, dict[str, float]]
    """What Ray's nodes reported, by their id."""
    curve: list[tuple[float, float]]
    """Images inferred over time."""
    cpu_seconds: float = 0.0
    """Of the driver, Ray and its workers on this machine."""
    wall_seconds: float = 0.0
    """From the start of its process to the end; for a run in this one, from the start of Ray."""
    memory: list[Memory] = field(default_factory=list)

    @property
    def images(self) -> int:
        return Counts.from_dict(self.counts).computed

    @property
    def processing_seconds(self) -> float:
        """From ready actors to the published table."""
        return self.ended - self.ready

    @property
    def rate(self) -> float:
        """Images/s without what happens once: imports, Ray's start, loading the model."""
        return self.images / self.processing_seconds

    @property
    def wall_rate(self) -> float:
        """Images/s of the whole process."""
        return self.images / self.wall_seconds

    @property
    def steady(self) -> float:
        """Images/s while all stages are busy; ``rate`` if the run is too short to tell."""
        return steady_rate(self.curve) or self.rate

    def summary(self) -> dict[str, Any]:
        """Figures for a JSON file, without the curves."""
        left_out = {"curve", "memory", "versions"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return values | {
            "images": self.images,
            "images_per_second": self.rate,
            "images_per_second_steady": self.steady,
            "images_per_second_with_start": self.wall_rate,
            "cpu_seconds_per_image": self.cpu_seconds / max(self.images, 1),
        }


class Watcher:
    """Context that polls the progress of the run that this process drives, once it has a Ray."""

    def __init__(self) -> None:
        self.connected: float | None = None
        self.cluster: dict[str, float] = {}
        self.curve: list[tuple[float, float]] = []
        self.by_node: dict[str, dict[str, float]] = {}
        self.ready: float | None = None
        self._actors = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(POLL_SECONDS if self._has_begun else START_POLL_SECONDS):
            with suppress(ray.exceptions.RayError):  # which the run shuts down meanwhile
                if ray.is_initialized():
                    self._look()

    def _look(self) -> None:
        if self.connected is None:
            self.connected, self.cluster = time.time(), machine.cluster()
        if reported := progress.watch():
            self._see(time.time(), reported)

    @property
    def _has_begun(self) -> bool:
        return bool(self.curve) and self.curve[-1][1] > 0

    def _see(self, now: float, reported: dict[str, dict[str, float]]) -> None:
        self.by_node = reported
        actors, inferred = (
            sum(node.get(name, 0.0) for node in reported.values())
            for name in ("actors", "inferred")
        )
        if actors > self._actors and not inferred:
            self._actors, self.ready = actors, now
        self.curve.append((now, inferred))


def measure(spec: RunSpec) -> Measured:
    """Run here and now, as a command does."""
    started = time.time()
    with Watcher() as watcher:
        result = run(spec)
        ended = time.time()
    connected = watcher.connected or started
    return Measured(
        started=started,
        connected=connected,
        ready=watcher.ready or connected,
        ended=ended,
        counts=result.counts.to_dict(),
        timings=result.manifest.timings.to_dict(),
        versions=machine.all_versions(),
        cluster=watcher.cluster,
        by_node=watcher.by_node,
        curve=watcher.curve,
        wall_seconds=ended - started,
    )


def measure_apart(spec: RunSpec) -> Measured:
    """Run in a fresh process, and watch what it uses.

    Raises:
        RunError: it did not close; the message has the last line of its output.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        given, result = Path(directory, "spec.json"), Path(directory, "result.json")
        given.write_text(json.dumps(spec.to_dict()))
        wall, sampler = call(
            ["jobs.bench.measure.fresh_process", str(given), str(result)], Path(directory, "log")
        )
        values = json.loads(result.read_text())
    values["curve"] = [tuple(point) for point in values["curve"]]
    values |= {"cpu_seconds": sampler.cpu_seconds, "wall_seconds": wall, "memory": sampler.memory}
    return Measured(**values)


def call(module_and_arguments: Sequence[str], log: Path) -> tuple[float, Sampler]:
    """Run a module in a fresh Python; its wall seconds, and what it used.

    Raises:
        RunError: its exit code is not 0; the message has the last line of its output.
    """
    # -P: a folder of the working directory may be called jobs. And nobody who asks Ray something
    # when it is no longer there is to start another one.
    command = [sys.executable, "-P", "-m", *module_and_arguments]
    here = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    alone = {"PYTHONPATH": path, "RAY_ENABLE_AUTO_CONNECT": "0"}
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | alone
        )
        try:
            with Sampler(process.pid) as sampler:
                code = process.wait()
        finally:
            process.kill()  # does nothing if it has ended
    if code:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise RunError(f"{module_and_arguments[0]} ended with exit code {code}: {lines[-1]}")
    return time.perf_counter() - started, sampler


def main() -> int:
    """Entry point of the fresh process."""
    atexit.register(gc.freeze)  # as commands do, whose end this is to be like
    given, result = map(Path, sys.argv[1:])
    content = json.loads(given.read_text())
    try:
        measured = measure(spec_from_config(content, str(given)))
    except Exception as error:  # noqa: BLE001  # the last line of the log is all that is read
        print(f"{type(error).__name__}: {one_line(error)}")
        return 1
    result.write_text(json.dumps(asdict(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
