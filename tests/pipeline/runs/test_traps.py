"""A whole run over images that hang or crash their decoder: they cost their rows, not the run."""

from pathlib import Path

import pytest

from pipeline.contract.errors import ExitCode
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, PolicySpec, RunSpec
from pipeline.model.families import registry
from pipeline.runs.run import run
from tests.support.inputs.images import encode, noise
from tests.support.models.traps import CRASH, SPIN, TRAPS, write_traps
from tests.support.outputs.found import published_rows


@pytest.mark.usefixtures("ray_local")
def test_each_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", (TRAPS,))
    files = {f"{n:02d}.png": encode(noise(seed=n), "PNG") for n in range(12)}
    files |= {"03.png": SPIN, "04.png": CRASH, "09.png": SPIN}
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    spec = RunSpec(
        inputs=InputSpec(uris=(str(tmp_path / "in"),), max_decode_seconds=2),
        model=ModelSpec(source=str(write_traps(tmp_path / "model"))),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=1, pooling="mean"),
        policy=PolicySpec(max_failure_rate=0.5),
    )
    result = run(spec)
    assert result.exit_code == ExitCode.OK
    assert result.manifest.counts == Counts(listed=12, ok=9, failed=3, skipped=0)
    failed = {
        str(row["uri"])[-6:]: (row["error_code"], row["error_message"])
        for row in published_rows(tmp_path / "out")
        if row["status"] == "failed"
    }
    took_too_long = ("timeout", "it took longer than 2 s to decode")
    crashed = ("corrupt", "the decoder's process ended on it: SIGSEGV")
    assert failed == {"03.png": took_too_long, "04.png": crashed, "09.png": took_too_long}
