"""Whether memory grows with time: a run over small images for half an hour, every process watched.

    python -m tests.campaigns.soak [--minutes 30]

Tars of the same small images under ever new names feed a tiny network. Of every process the table
shows the memory of its own (what it shares with others, such as Ray's object store, left out), and
its slope over the second half of these minutes: everything is loaded then, and nothing merged yet.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.bench.measure.tables import table
from jobs.bench.synthetic.models import write_model

MEMBERS = 10_000
"""Of a tar."""
TARS_A_MINUTE = 6
"""More than two cores get through."""
PAUSE_SECONDS = 10.0
TITLE_CHARACTERS = 50
MIB = 2**20


@dataclass
class Watched:
    """A process, and what it held at which second."""

    title: str
    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def row(self, end: float) -> tuple[str, ...] | None:
        """Name, MiB at the start of the second half and at its end, MiB a minute between, and the
        most at any time; None for what did not live so long."""
        half = [at for at, second in enumerate(self.seconds) if end / 2 <= second <= end]
        if len(half) < 3 or self.seconds[half[0]] > 0.6 * end or self.seconds[half[-1]] < 0.9 * end:
            return None
        seconds, mib = ([values[at] for at in half] for values in (self.seconds, self.mib))
        slope = 60 * np.polyfit(seconds, mib, 1)[0]
        most = max(self.mib)
        return self.title, f"{mib[0]:.0f}", f"{mib[-1]:.0f}", f"{slope:+.2f}", f"{most:.0f}"


def write_tars(directory: Path, number: int) -> None:
    """One tar under many names: each name makes other images of it."""
    directory.mkdir()
    images = []
    for seed in range(16):
        noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    first = directory / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for member in range(MEMBERS):
            info = tarfile.TarInfo(f"{member:06d}.jpg")
            data = images[member % len(images)]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for name in range(1, number):
        os.link(first, directory / f"{name:05d}.tar")


def watch(mark: bytes, watched: dict[int, Watched], started: float) -> None:
    """Note what every process with this mark in its environment holds now."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark not in (entry / "environ").read_bytes():
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            pages = (entry / "statm").read_text().split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is not ours
            continue
        found = watched.setdefault(int(entry.name), Watched(command))
        found.title = _title(command.split())
        found.seconds.append(time.monotonic() - started)
        found.mib.append((int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / MIB)


def _title(words: list[str]) -> str:
    """What a process is called, without directories; Ray renames its workers while they live."""
    plain = [word.rpartition("/")[2] for word in words if not word.startswith("-")]
    return " ".join(plain)[:TITLE_CHARACTERS]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    seconds = 60 * parser.parse_args().minutes
    watched: dict[int, Watched] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_tars(scratch / "in", max(round(seconds / 60 * TARS_A_MINUTE), 1))
        write_model(scratch / "model", "small")
        command = [
            sys.executable, "-m", "jobs.classify", str(scratch / "in"),
            "--output", str(scratch / "out"), "--model", str(scratch / "model"),
            "--max-seconds", str(round(seconds)),
        ]  # fmt: skip
        mark = {"CVT_SOAK": name}  # which all its processes inherit
        started = time.monotonic()
        with subprocess.Popen(command, env=os.environ | mark) as process:
            while process.poll() is None:
                watch(f"CVT_SOAK={name}".encode(), watched, started)
                time.sleep(PAUSE_SECONDS)
        if process.returncode:
            raise SystemExit(f"the run ended with exit code {process.returncode}")
    rows = sorted(filter(None, (found.row(seconds) for found in watched.values())))
    print(table(("process", "MiB at half time", "at the end", "MiB a minute", "the most"), rows))


if __name__ == "__main__":
    main()
