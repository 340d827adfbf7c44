"""What a night on GPUs may meet: an actor that is killed, and memory that others hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
import torch

from jobs.bench.gpu.card import ON_GPU
from jobs.bench.measure.processes import family

ACTOR = b"ray::MapWorker(MapBatches(Predictor))"
LEFT_BYTES = 1_200 * 2**20
"""Of the card's memory, for a run that would like more: a CUDA context takes half of it."""


@dataclass(frozen=True, kw_only=True)
class Survived:
    """A run with a fault in it."""

    fault: str
    exit_code: int
    ok: int
    """Rows with a result."""
    images: int
    said: str
    """The last lines of its log that are not about progress."""

    @property
    def passed(self) -> bool:
        return self.exit_code == 0 and self.ok == self.images


def killed_actor(photographs: Path, model: Path, output: Path) -> Survived:
    """A run whose actor is killed as soon as it has begun to compute."""
    return _run("an actor is killed", photographs, model, output, beside=_kill_one_actor)


def held_memory(photographs: Path, model: Path, output: Path) -> Survived:
    """A run on a card of which another process holds nearly all memory."""
    with _hold_memory():
        return _run("others hold the memory", photographs, model, output)


def _run(
    fault: str,
    photographs: Path,
    model: Path,
    output: Path,
    beside: Callable[[subprocess.Popen[str]], None] = lambda run: None,
) -> Survived:
    options = ["--dtype", "bfloat16" if ON_GPU else "float32", "--no-compile"]
    command = [sys.executable, "-m", "jobs.classify", str(photographs)]
    places = ["--output", str(output), "--model", str(model)]
    with subprocess.Popen(
        [*command, *places, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as run:
        helper = threading.Thread(target=beside, args=(run,), daemon=True)
        helper.start()
        _, told = run.communicate()
        helper.join(10)
    data = output / "data"
    rows = ds.dataset(data, format="parquet") if data.exists() else None
    return Survived(
        fault=fault,
        exit_code=run.returncode,
        ok=rows.count_rows(filter=ds.field("status") == "ok") if rows else 0,
        images=len(list(photographs.iterdir())),
        said="; ".join(line for line in told.splitlines() if "images, " not in line)[-600:],
    )


def _kill_one_actor(run: subprocess.Popen[str]) -> None:
    """SIGKILL an actor some seconds after it is there: in the middle of its work."""
    while run.poll() is None:
        if actors := list(_actors(run.pid)):
            time.sleep(3.0 if ON_GPU else 0.0)
            os.kill(actors[0], signal.SIGKILL)
            return
        time.sleep(0.2)


def _actors(pid: int) -> Iterator[int]:
    for process in family(pid):
        try:
            name = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(ACTOR) and b"__init__" not in name:
            yield process.pid


@contextmanager
def _hold_memory() -> Iterator[None]:
    if not ON_GPU:
        yield
        return
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - LEFT_BYTES, 0), dtype=torch.uint8, device="cuda")
    yield
    del held
    torch.cuda.empty_cache()
