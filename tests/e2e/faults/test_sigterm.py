"""A run is asked to stop."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images

pytestmark = pytest.mark.ray


def test_sigterm_ends_the_run_with_one_line(tmp_path: Path, checkpoint: Path) -> None:
    write_images(tmp_path / "in", 600)
    arguments = (tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint)
    with subprocess.Popen(
        command("embed", *arguments),
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "actor" in line:  # Ray is up, the graph is about to run
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(480) == 1
    expected = "error: stopped by SIGTERM; start the same command again to continue"
    assert rest.splitlines()[-1] == expected
    assert "Traceback" not in rest
