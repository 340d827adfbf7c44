"""What a process and its descendants use, from /proc (on Linux; elsewhere nothing is seen)."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One line of /proc."""

    pid: int
    parent: int
    cpu_seconds: float
    """User and system time so far."""
    own_bytes: int
    """Resident memory that is not shared: neither files nor Ray's object store."""
    is_ray_worker: bool
    name: str
    """The title of a worker of Ray, else the script, the module or the program."""


@dataclass(frozen=True)
class Memory:
    """Unshared memory at a moment, in bytes."""

    when: float
    """Seconds since the epoch."""
    driver: int
    workers: int
    """Sum over Ray's workers."""


@dataclass
class Sampler:
    """Context that watches a process and its descendants from a thread.

    What a process uses between its last sample and its end is not seen.
    """

    pid: int
    interval: float = 0.5
    memory: list[Memory] = field(default_factory=list)
    _cpu: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        """Of all processes seen."""
        return sum(self._cpu.values())

    def _loop(self) -> None:
        while True:
            self._sample()
            if self._stop.wait(self.interval):
                return

    def _sample(self) -> None:
        tree = family(self.pid)
        self._cpu |= {process.pid: process.cpu_seconds for process in tree}
        self.memory.append(
            Memory(
                time.time(),
                sum(process.own_bytes for process in tree if process.pid == self.pid),
                sum(process.own_bytes for process in tree if process.is_ray_worker),
            )
        )


def family(pid: int) -> list[Process]:
    """A process and all its descendants, except those that end in the meantime."""
    children: defaultdict[int, list[Process]] = defaultdict(list)
    found: list[Process] = []
    for entry in _PROC.glob("[0-9]*"):
        process = _read(entry)
        if process is None:
            continue
        children[process.parent].append(process)
        if process.pid == pid:
            found.append(process)
    for process in found:  # grows while it is read
        found += children[process.pid]
    return found


def peak_bytes(pid: int) -> int:
    """The most that a process has had in memory so far, with what it shares; 0 if it has ended."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _read(entry: Path) -> Process | None:
    try:
        stat = (entry / "stat").read_text().rpartition(")")[2].split()
        resident, shared = map(int, (entry / "statm").read_text().split()[1:3])
        command = (entry / "cmdline").read_bytes()
    except (OSError, ValueError):  # it ended
        return None
    return Process(
        pid=int(entry.name),
        parent=int(stat[1]),
        cpu_seconds=(int(stat[11]) + int(stat[12])) / _TICKS,
        own_bytes=(resident - shared) * _PAGE,
        is_ray_worker=command.startswith(b"ray::"),
        name=_name(command.decode(errors="replace").split("\0")),
    )


def _name(words: Sequence[str]) -> str:
    if words[0].startswith("ray::"):
        return words[0].strip()
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    script = next((word for word in words if word.endswith(".py")), words[0])
    return "/".join(Path(script).parts[-2:]) if script.endswith(".py") else Path(script).name
