"""What the start of a run costs: one image, and the CPU time of every process until its row."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.bench.measure.processes import family
from jobs.bench.measure.tables import table
from pipeline.contract import layout
from pipeline.contract.errors import RunError

ROOT = Path(__file__).resolve().parents[3]
_INTERVAL = 0.05
_NAMELESS = frozenset({"ray::IDLE", ""})
"""What a worker is called before and after its work, and a process that has ended."""


@dataclass
class Start:
    """CPU seconds by process, until the first row and in all."""

    first_row: float = 0.0
    """Wall seconds; 0 before there is one."""
    before: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        names = sorted(self.whole, key=lambda name: -self.before.get(name, 0.0))
        rows = [(name, self.before.get(name, 0.0), self.whole[name]) for name in names]
        rows.append(("all", sum(self.before.values()), sum(self.whole.values())))
        shown = [(name, f"{before:.1f}", f"{whole:.1f}") for name, before, whole in rows]
        head = ("process", "CPU s to the first row", "CPU s in all")
        return f"{table(head, shown)}\nfirst row after {self.first_row:.1f} s"


def bench_start(uris: Sequence[str], model: str, directory: Path) -> Start:
    """Classify one image in a fresh process, as from a shell.

    Args:
        directory: an empty one, for the output and the log.

    Raises:
        RunError: the run failed; the message has the last line of its log.
    """
    output = directory / "out"
    run = [sys.executable, "-P", "-m", "jobs.classify", *uris, "--model", model, "--limit", "1"]

    def has_row() -> bool:
        return any((output / layout.OPEN).glob("*/parts/*.parquet"))

    return watch([*run, "--output", str(output)], has_row, directory / "log")


def watch(command: Sequence[str], has_row: Callable[[], bool], log: Path) -> Start:
    """Run a command and look at it, and at its descendants, 20 times a second.

    Raises:
        RunError: its exit code is not 0; the message has the last line of its log.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    start, began = Start(), time.monotonic()
    names: dict[int, str] = {}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": path}
        )
        used: dict[int, float] = {}
        by_then: dict[int, float] = {}
        while process.poll() is None:
            for one in family(process.pid):
                used[one.pid] = one.cpu_seconds
                if one.name not in _NAMELESS or one.pid not in names:  # the last thing that it did
                    names[one.pid] = one.name
            if not start.first_row and has_row():
                start.first_row, by_then = time.monotonic() - began, dict(used)
            time.sleep(_INTERVAL)
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise RunError(f"the run ended with exit code {process.returncode}: {lines[-1]}")
    start.before, start.whole = _named(by_then, names), _named(used, names)
    return start


def _named(used: dict[int, float], names: dict[int, str]) -> dict[str, float]:
    return {f"{names[pid]} ({pid})": seconds for pid, seconds in used.items()}
