"""The jobs as commands: from the repository's root as the README has them, or in this process."""

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

CallJob = Callable[..., subprocess.CompletedProcess[str]]
"""``call_job``, a fixture: as ``run_job``, in the process of the tests."""
REPOSITORY = Path(__file__).resolve().parents[2]


def command(job: str, *arguments: str | Path) -> list[str]:
    """``python -m jobs.JOB ...`` with this interpreter."""
    return [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)]


def run_job(
    job: str, *arguments: str | Path, timeout: float = 480
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


def call_main(job: str, *arguments: str | Path) -> int:
    """Run a job in this process, which has imported torch and Ray already; its exit code.

    The log belongs to pytest then, and the signals as well.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.cli.command._log_to_stderr", lambda *_: None)
        patch.setattr("jobs.cli.command._interrupt_on_sigterm", threading.Event)
        patch.setattr(sys, "argv", [job, *map(str, arguments)])
        try:
            return int(importlib.import_module(f"jobs.{job}").main())
        except SystemExit as stop:  # of argparse
            return int(stop.code or 0)
