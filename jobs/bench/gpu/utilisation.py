"""How busy the card and the cores are, once a second."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Moment:
    """Shares from 0 to 1; None where the machine does not tell."""

    seconds: float
    cores: float | None
    cards: float | None


@dataclass
class Utilisation:
    """Context that watches this machine from a thread."""

    moments: list[Moment] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def busiest(self) -> Moment | None:
        """The middle of the busiest third, by the cores: while everything runs."""
        known = [moment for moment in self.moments if moment.cores is not None]
        ordered = sorted(known, key=lambda moment: moment.cores or 0.0, reverse=True)
        third = ordered[: -(-len(ordered) // 3)]
        return third[len(third) // 2] if third else None

    def _loop(self) -> None:
        before = _core_ticks()
        while not self._stop.wait(1.0):
            now = _core_ticks()
            busy = None
            if before and now and now[1] > before[1]:
                busy = (now[0] - before[0]) / (now[1] - before[1])
            before = now
            self.moments.append(Moment(time.monotonic() - self._started, busy, _cards()))


def _core_ticks() -> tuple[int, int] | None:
    """Busy and all ticks of all cores since the machine started."""
    try:
        numbers = [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return None
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def _cards() -> float | None:
    """Mean over the cards."""
    try:
        told = subprocess.run(_QUERY, capture_output=True, text=True, timeout=5, check=True).stdout
        shares = [float(line) / 100 for line in told.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return sum(shares) / len(shares) if shares else None
