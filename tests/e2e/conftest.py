import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.commands import CallJob


@pytest.fixture
def call_job(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CallJob:
    """As `run_job`, but in this process, which has imported torch and Ray already.

    The log belongs to pytest then, and the signals as well.
    """
    monkeypatch.setattr("jobs.cli.command._log_to_stderr", lambda *_: None)
    monkeypatch.setattr("jobs.cli.command._interrupt_on_sigterm", threading.Event)

    def call(job: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [job, *map(str, arguments)])
        try:
            code = importlib.import_module(f"jobs.{job}").main()
        except SystemExit as stop:  # of argparse
            code = stop.code
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, printed.out, printed.err)

    return call
