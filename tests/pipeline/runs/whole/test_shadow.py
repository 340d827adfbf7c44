"""A night with a second model in its shadow, beside the same night without."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.contract.spec import ComputeSpec, InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.runs.result import RunResult
from pipeline.runs.run import run
from tests.support.inputs.images import write_images
from tests.support.models.checkpoints import write_checkpoint


@pytest.mark.usefixtures("ray_local")
def test_the_table_does_not_know(tmp_path: Path, checkpoint: Path) -> None:
    write_images(tmp_path / "in", 12)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    other = str(write_checkpoint(tmp_path / "other", seed=1))

    def night(name: str, source: Path | str, shadow: str | None = None) -> RunResult:
        spec = RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "in"),)),
            model=ModelSpec(source=str(source), shadow=shadow, dtype="float32"),
            output=OutputSpec(uri=str(tmp_path / name), top_k=5, embeddings=True),
            compute=ComputeSpec(num_actors=1),
        )
        return run(spec)

    beside, alone = night("beside", checkpoint, other), night("alone", checkpoint)
    theirs = night("theirs", other)
    tables = [pq.read_table(next(Path(r.data_uri).iterdir())) for r in (beside, alone, theirs)]
    assert tables[0].equals(tables[1])
    assert beside.manifest.identity == alone.manifest.identity
    assert alone.manifest.shadow is None

    rows = zip(tables[0].to_pylist(), tables[2].to_pylist(), strict=True)
    expected = {
        one["uri"]: (one["label"], one["score"], two["label"], two["score"])
        for one, two in rows
        if one["label"] != two["label"]
    }
    folder = Path(beside.report_uri).parent
    found = pq.read_table(folder / "shadow.parquet").to_pylist()
    assert {row.pop("uri"): tuple(row.values()) for row in found} == expected
    told = json.loads((folder / "manifest.json").read_text())["shadow"]
    assert (told["compared"], told["not_compared"]) == (12, 0)
    assert (told["model"], told["differing"]) == (other, len(expected))
    assert told["model"] in (folder / "report.html").read_text()
