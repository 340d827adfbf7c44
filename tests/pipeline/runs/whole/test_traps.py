"""Whole runs over images that hang, crash their decoder or want gigabytes: each costs its row."""

from pathlib import Path

import pytest

from pipeline.contract.errors import ExitCode
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import (
    ComputeSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.model.families import registry
from pipeline.runs.run import run
from tests.support.inputs.images import encode, noise
from tests.support.models.limited import LIMITED
from tests.support.models.traps import CRASH, SPIN, TRAPS, write_traps
from tests.support.outputs.found import published_rows
from tests.support.pictures.bombs import BOMBS, MAX_PIXELS

SOME = ("ico", "tiff, tile", "tiff, offsets", "gif, comments", "jpeg, segments", "blp", "fits")
"""Bombs; all of them are in ``tests/cvt/preprocessing/containers/test_bombs.py``."""


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
        compute=ComputeSpec(num_actors=1),
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


@pytest.mark.usefixtures("ray_local")
def test_bombs_in_workers_of_one_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of them decode at a time, and none ends."""
    monkeypatch.setattr(registry, "FAMILIES", (LIMITED,))
    (tmp_path / "in").mkdir()
    expected = {}
    for name in SOME:
        make, expected[name] = BOMBS[name]
        (tmp_path / "in" / f"{name}.jpg").write_bytes(make())
    for number in range(20):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(encode(noise(seed=number), "JPEG"))
    spec = RunSpec(
        inputs=InputSpec(uris=(str(tmp_path / "in"),), max_pixels=MAX_PIXELS),
        model=ModelSpec(source=str(write_traps(tmp_path / "model"))),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=1, pooling="mean"),
        compute=ComputeSpec(num_actors=1),
        policy=PolicySpec(max_failure_rate=1),
    )
    assert run(spec).exit_code == ExitCode.OK
    found = {
        Path(str(row["uri"])).stem: row["error_code"] or "ok"
        for row in published_rows(tmp_path / "out")
    }
    assert found == expected | {str(number): "ok" for number in range(20)}
    assert "of a decode task whose process ended" not in caplog.text
