import subprocess
from pathlib import Path

import pytest

from tests.support.commands import CallJob, call_main


@pytest.fixture
def call_job(capfd: pytest.CaptureFixture[str]) -> CallJob:
    """As ``run_job``, but in this process."""

    def call(job: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = call_main(job, *arguments)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess([job, *map(str, arguments)], code, *printed)

    return call
