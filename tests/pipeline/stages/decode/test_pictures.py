"""Pictures for a page: those that can be had, wherever they lie, and no trouble for the others."""

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvt import CvtImageProcessor
from pipeline.model.families.cvt import CvtPreprocessing
from pipeline.sources.formats.item import Item
from pipeline.stages.decode import pictures as module
from pipeline.stages.decode.pictures import pictures
from tests.support.inputs.images import encode, noise
from tests.support.inputs.tars import tar_bytes

PREPROCESSING = CvtPreprocessing(CvtImageProcessor(size=32))
SECONDS = 60.0
NO_STORE = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "none",
}
"""Where nobody listens: s3:// leads there, and not to a network that the machine may lack."""
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def test_files_and_members_as_the_model_sees_them(tmp_path: Path) -> None:
    data = [encode(Image.new("RGB", (40, 50), colour), "PNG") for colour in COLOURS]
    (tmp_path / "a.png").write_bytes(data[0])
    (tmp_path / "b.tar").write_bytes(tar_bytes({"0.png": data[1], "1.png": data[2]}))
    pq.write_table(pa.table({"image": data}), tmp_path / "c.parquet")
    uris = [f"{tmp_path}/{name}" for name in ("a.png", "b.tar#1.png", "c.parquet#1")]
    found = pictures(uris, PREPROCESSING, SECONDS)
    assert sorted(found) == uris
    for uri, number in zip(uris, (0, 2, 1), strict=True):
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[uri]))))
        assert seen.shape == (32, 32, 3)
        assert abs(seen.mean(axis=(0, 1)) - COLOURS[number]).max() < 3


@pytest.mark.parametrize("name", ["gone.png", "gone.tar#0.png", "text.png", "s3://no/such.png"])
def test_what_cannot_be_had_is_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.retry.TRIES", 1)
    monkeypatch.setattr("pipeline.storage.retry.AWAY_SECONDS", 0)
    for variable, value in NO_STORE.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "a.png").write_bytes(encode(noise(), "PNG"))
    uri = name if name.startswith("s3") else f"{tmp_path}/{name}"
    found = pictures([uri, f"{tmp_path}/a.png"], PREPROCESSING, SECONDS)
    assert set(found) == {f"{tmp_path}/a.png"}


def test_nothing_is_waited_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encode(noise(), "PNG"))
    gate = threading.Event()

    def waiting(uris: list[str]) -> Iterator[Item]:
        gate.wait()
        yield from ()

    monkeypatch.setattr(module, "_items", waiting)
    assert pictures([f"{tmp_path}/a.png"], PREPROCESSING, 0.0) == {}
    gate.set()


def test_deep_in_a_shard_nobody_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MEMBERS", 2)
    members = {f"{n}.png": encode(noise(seed=n), "PNG") for n in range(3)}
    (tmp_path / "b.tar").write_bytes(tar_bytes(members))
    uris = [f"{tmp_path}/b.tar#{name}" for name in members]
    assert sorted(pictures(uris, PREPROCESSING, SECONDS)) == uris[:2]
