"""A run is killed and started again: every image ends in exactly one row."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.support.samples import REPOSITORY, command, published_rows, run_job, write_images

IMAGES = 900


def kill_when_parts_are_committed(arguments: list[str], output: Path, parts: int) -> None:
    """Start a run, and SIGKILL the driver as soon as so many parts stand."""
    process = subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while len(list(output.glob("_open/*/parts/*.parquet"))) < parts:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.kill()
    process.wait()


def test_killed_and_started_again(tmp_path: Path, checkpoint: Path) -> None:
    write_images(tmp_path / "in", IMAGES)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"bad")
    output = tmp_path / "out"
    arguments = (tmp_path / "in", "--output", output, "--model", checkpoint)

    kill_when_parts_are_committed(command("classify", *arguments), output, parts=1)
    assert not (output / "data").exists(), "an open run is not visible"
    committed = len(list(output.glob("_open/*/parts/*.parquet")))

    done = run_job("classify", *arguments)
    assert done.returncode == 0, done.stderr
    assert "continuing run" in done.stderr
    counts = Counter(row["uri"] for row in published_rows(output))
    assert len(counts) == IMAGES + 1
    assert set(counts.values()) == {1}
    assert not (output / "_open").exists() or not list((output / "_open").iterdir())
    manifest = json.loads(next(output.glob("runs/*/manifest.json")).read_text())
    assert manifest["attempts"] == 2
    # Committed rows are not computed again.
    assert manifest["plan"]["finished"] >= 256 * committed
    assert manifest["timings"]["stage_inferred"] <= IMAGES + 1 - manifest["plan"]["finished"]


def test_sigterm_ends_the_run_with_one_line(tmp_path: Path, checkpoint: Path) -> None:
    write_images(tmp_path / "in", 600)
    arguments = (tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint)
    process = subprocess.Popen(
        command("embed", *arguments),
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "actor" in line:  # Ray is up, the graph is about to run
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(60) == 1
    expected = "error: stopped by SIGTERM; start the same command again to continue"
    assert rest.splitlines()[-1] == expected
    assert "Traceback" not in rest
