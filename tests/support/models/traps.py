"""A family whose decoder some files stop: the toy family's, with traps in it."""

import ctypes
import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.contract.spec import CpuDecodeMode, ModelSpec
from pipeline.model.families.registry import Family
from pipeline.model.network import Decoded
from tests.support.models.toy_family import ToyCheckpoint, ToyPreprocessing
from tests.support.models.toy_family import load as load_toy

SLEEP, SPIN, CRASH, EXIT, KILL, KILL_ONCE = b"sleep", b"spin", b"crash", b"exit", b"kill", b"once:"
HANG = (SLEEP, SPIN)


@dataclass(frozen=True)
class TrapPreprocessing(ToyPreprocessing):
    def decode(self, data: bytes, *, mode: CpuDecodeMode, max_pixels: int) -> Decoded:
        if data == SLEEP:
            time.sleep(3600)
        if data == SPIN:  # a C function that holds Python's lock: no thread of Python's runs
            ctypes.PyDLL(None).usleep(3600 * 10**6)
        if data == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if data == EXIT:
            os._exit(3)
        if data == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if data.startswith(KILL_ONCE):
            _kill_once(Path(data.removeprefix(KILL_ONCE).split(b"\n")[0].decode()))
            data = data.split(b"\n", 1)[1]
        return super().decode(data, mode=mode, max_pixels=max_pixels)


def _kill_once(mark: Path) -> None:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def load(spec: ModelSpec) -> ToyCheckpoint:
    toy = load_toy(spec)
    return replace(toy, preprocessing=TrapPreprocessing(toy.preprocessing.size))


TRAPS = Family("toy", load, lambda config: config.get("model_type") == "toy")


def write_traps(directory: Path) -> Path:
    """A checkpoint of the family."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "toy", "size": 8}))
    return directory
