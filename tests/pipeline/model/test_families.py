"""Another family of networks goes the whole way, from its checkpoint to rows."""

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cvt import CvtImageProcessor, ImageDecodeError
from pipeline.contract.errors import DecodeError, UsageError
from pipeline.contract.schema import WORK
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.families import cvt, registry
from pipeline.model.families.cvt import CvtPreprocessing
from pipeline.model.loaded import LoadedModel
from pipeline.sources.formats.registry import IMAGE
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings
from pipeline.storage.filesystems import WorkerEnvironment
from tests.support.models.checkpoints import write_checkpoint
from tests.support.models.toy_family import TOY, PackedToy, write_toy


@pytest.fixture(autouse=True)
def two_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, TOY))
    monkeypatch.setattr("pipeline.stages.infer.actor.ray.get", lambda reference: reference)


def load(source: Path, dtype: Any = "float32", **changes: Any) -> LoadedModel:
    output: dict[str, Any] = {"uri": "out", "top_k": 2, "embeddings": True, "pooling": "mean"}
    return LoadedModel.load(
        RunSpec(
            inputs=InputSpec(uris=("in",)),
            model=ModelSpec(source=str(source)),
            output=OutputSpec(**output | changes),
        ),
        dtype,
    )


def paint(path: Path, colour: str) -> str:
    Image.new("RGB", (20, 10), colour).save(path)
    return str(path)


def decoded(model: LoadedModel, uris: list[str]) -> pa.Table:
    rows = [{"uri": uri, "kind": IMAGE.kind} for uri in uris]
    settings = DecodeSettings(
        preprocessing=pickle.loads(pickle.dumps(model.preprocessing)),  # as a worker gets it
        environment=WorkerEnvironment({}),
        max_pixels=10**6,
        max_bytes=10**6,
        block_size=8,
    )
    (table,) = decode_block(pa.Table.from_pylist(rows, schema=WORK), settings)
    return table


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_images_become_rows(tmp_path: Path, dtype: Any) -> None:
    model = load(write_toy(tmp_path / "model"), dtype)
    uris = [paint(tmp_path / f"{colour}.png", colour) for colour in ("blue", "red")]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    settings = InferSettings.of(model, gpus=0, threads=1, batch_size=4)
    actor = Predictor(pickle.loads(pickle.dumps(model.pack())), settings)
    table = actor(decoded(model, [*uris, str(broken)]))
    assert table["label"].to_pylist() == ["blue", "red", None]
    assert table["topk_scores"].to_pylist() == [[1, 0], [1, 0], None]
    assert table["embedding"].to_pylist() == [[0, 0, 1], [1, 0, 0], None]
    assert table["width"].to_pylist() == [20, 20, None]
    assert table["error_code"].to_pylist() == [None, None, "not_an_image"]
    assert model.schema.field("embedding").type == pa.list_(pa.float32(), 3)


def test_its_fingerprint_and_its_refusals_are_its_own(tmp_path: Path) -> None:
    model = load(write_toy(tmp_path / "model"))
    assert model.provenance.preprocessing == {"size": 8, "decode": "fast"}
    assert model.provenance.activation == "none"
    other = load(write_toy(tmp_path / "other", size=9))
    assert model.provenance.fingerprint != other.provenance.fingerprint
    with pytest.raises(UsageError, match="the pooling mean alone, not cls"):
        load(tmp_path / "model", pooling="cls")


def test_its_weights_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the family looked at them."""
    monkeypatch.setattr(
        "tests.support.models.toy_family.np.eye", lambda n, dtype: np.full((n, n), np.inf, dtype)
    )
    with pytest.raises(UsageError, match="weights hold NaN or infinity, as in weight"):
        load(write_toy(tmp_path / "model"))


def test_a_network_that_deviates_from_its_reference_does_not_start(tmp_path: Path) -> None:
    model = load(write_toy(tmp_path / "model"))
    other = PackedToy(np.roll(np.eye(3, dtype=np.float32), 1, axis=0), model.form)
    spoilt = replace(model.pack(), network=other)
    settings = InferSettings.of(model, gpus=0, threads=1, batch_size=4)
    with pytest.raises(RuntimeError, match="logits in float32 deviate"):
        Predictor(spoilt, settings)


def test_a_checkpoint_that_nobody_claims_goes_to_the_first(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "cvt")
    assert load(folder).classes == [f"class {number}" for number in range(7)]
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    assert isinstance(load(folder).checkpoint, cvt.CvtCheckpoint)
    with pytest.raises(UsageError, match=r"cannot load the model: .* is neither an existing path"):
        load(tmp_path / "nothing")


def test_what_cvt_says_of_bytes_are_error_codes_of_rows() -> None:
    kinds, found = [ImageDecodeError], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found |= {kind.code} if "code" in vars(kind) else set()
    assert found == DecodeError.codes - {"timeout"}  # which only the pipeline can tell
    preprocessing = CvtPreprocessing(CvtImageProcessor(size=8))
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG")
    with pytest.raises(DecodeError, match="200") as caught:
        preprocessing.decode(buffer.getvalue(), mode="fast", max_pixels=100)
    assert caught.value.code == "too_many_pixels"
