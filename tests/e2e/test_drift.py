"""Two nights, the second of them quite different: what the job says and leaves behind."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.commands import run_job
from tests.support.inputs.images import write_images

pytestmark = pytest.mark.ray


@pytest.mark.slow
def test_another_kind_of_images_is_told_and_ends_in_exit_code_3(
    tmp_path: Path, checkpoint: Path
) -> None:
    write_images(tmp_path / "in", 110)
    arguments: list[str | Path] = [
        tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint,
        "--with-embeddings", "--fail-on-drift", "--review", "3",
    ]  # fmt: skip
    assert run_job("classify", *arguments).returncode == 0
    for number in range(105):
        Image.new("RGB", (40, 50), (number, 255 - number, 0)).save(tmp_path / f"in/n{number}.png")
    done = run_job("classify", *arguments)
    assert done.returncode == 3
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "embedding centroid: RMS of Cohen's d over the dimensions" in error
    assert "threshold 0.5" in error
    assert "changed: embedding centroid" in done.stdout
    run = (
        tmp_path / "out" / Path(json.loads((tmp_path / "out/latest.json").read_text())["manifest"])
    )
    changes = pq.read_table(run.with_name("changes.parquet")).to_pylist()
    assert {row["what"] for row in changes if row["label"] is None} == {
        "label shares", "top-1 score", "failures", "embedding centroid",
    }  # fmt: skip
    queue = pq.read_table(run.with_name("review.parquet")).to_pylist()
    assert [row["reason"] for row in queue] == [
        kind for kind in ("uncertain", "unlike", "random") for _ in range(3)
    ]
    assert all("/in/n" in row["uri"] for row in queue)
    assert len(json.loads(run.with_name("classes.json").read_text())) == 7
    assert "What changed" in run.with_name("report.html").read_text()
