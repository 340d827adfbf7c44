"""The jobs as commands, run from the repository's root as the README has them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CallJob = Callable[..., subprocess.CompletedProcess[str]]
"""`call_job`, a fixture: as `run_job`, in the process of the tests."""
REPOSITORY = Path(__file__).resolve().parents[2]


def command(job: str, *arguments: str | Path) -> list[str]:
    """``python -m jobs.JOB ...`` with this interpreter."""
    return [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)]


def run_job(
    job: str, *arguments: str | Path, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a job from the repository's root, as the README has it."""
    return subprocess.run(
        command(job, *arguments),
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
