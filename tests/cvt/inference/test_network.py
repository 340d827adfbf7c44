"""What ``optimize`` returns, against transformers in float32."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor, weights_hash
from cvt.inference.linear import OneDnnLinear
from cvt.inference.network import InferenceCvt, attention
from cvt.inference.openvino import OpenVinoCvt
from tests.support.commands import REPOSITORY
from tests.support.models.oracle import (
    SMALL,
    Oracle,
    difference,
    images,
    randomise,
    relative_difference,
)

DEMO = REPOSITORY / "jobs" / "demo"


@torch.inference_mode()
def test_float32_is_equal(cvt13: Oracle, cvt13_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir)
    before = weights_hash(model)
    fast = model.optimize()
    x = images(2, 224, 224)
    out = fast(x)
    assert difference(out.logits, cvt13(x).logits) < 1e-4
    assert difference(out.embedding, model(x).embedding) < 1e-4
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fast.modules())
    assert weights_hash(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_is_near(cvt13_dir: Path, dtype: torch.dtype) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir)
    x = images(3, 224, 224)
    out, expected = model.optimize(dtype=dtype)(x), model(x)
    assert out.logits.dtype == out.embedding.dtype == torch.float32
    assert F.cosine_similarity(out.embedding, expected.embedding).min() > 0.999
    assert difference(out.logits, expected.logits) > 1e-5  # the precision did change


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("pooling", ["cls_norm", "cls", "mean"])
@torch.inference_mode()
def test_poolings_and_activations_are_equal(small_dir: Path, pooling: str, activation: str) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir, activation=activation)
    x = images(3, 70, 51)
    out = model.optimize(pooling=pooling)(x)
    assert difference(out.logits, model(x).logits) < 1e-4
    assert relative_difference(out.embedding, model.embed(x, pooling=pooling)) < 1e-5


@pytest.mark.parametrize("batch", [1, 7])
@torch.inference_mode()
def test_bfloat16_attention_in_chunks_is_whole(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against PyTorch's operator in float32, with more scores than one chunk takes."""
    monkeypatch.setattr("cvt.inference.network._CACHED_SCORES", 2 * 3 * 50 * 20)
    tokens = images(batch, 110, 24)  # (B, 3 heads, tokens, C)
    q, k, v = tokens[:, :, :50], tokens[:, :, 50:70], tokens[:, :, 70:90]
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    found = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert relative_difference(found.float(), expected) < 0.03


@torch.inference_mode()
def test_without_onednn_the_ordinary_operators_run(
    small: Oracle, small_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir)
    x = images(2, 64, 64)
    assert any(isinstance(m, OneDnnLinear) for m in model.optimize().modules())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    fast = model.optimize()
    assert not any(isinstance(m, OneDnnLinear) for m in fast.modules())
    assert difference(fast(x).logits, small(x).logits) < 1e-4


@pytest.fixture
def shallow() -> CvtForImageClassification:
    """One block a stage, as compilers take seconds for each."""
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL | {"depth": [1, 1, 1]}))
    randomise(model, seed=0)
    return model.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@torch.inference_mode()
def test_compiled_is_equal(shallow: CvtForImageClassification) -> None:
    x = images(2, 64, 64)
    assert difference(shallow.optimize(compile=True)(x).logits, shallow(x).logits) < 1e-4


@torch.inference_mode()
def test_openvino_is_equal(shallow: CvtForImageClassification) -> None:
    """A smaller batch is padded."""
    fast = shallow.optimize(runtime="openvino")
    for size in [(2, 48, 64), (1, 48, 64)]:
        out, expected = fast(images(*size)), shallow(images(*size))
        assert difference(out.logits, expected.logits) < 1e-4
        assert difference(out.embedding, expected.embedding) < 1e-4


def test_openvino_converted_once_serves_every_copy(shallow: CvtForImageClassification) -> None:
    network = OpenVinoCvt(InferenceCvt(shallow), torch.float32)
    network.convert((3, 48, 64))
    copied = pickle.loads(pickle.dumps(network))
    for batch in (3, 1, 4):
        x = images(batch, 48, 64)
        assert difference(copied(x).logits, shallow(x).logits) < 1e-4
    with pytest.raises(ValueError, match="converted for images of 48x64 pixels, not 64x64"):
        copied(images(1, 64, 64))


def test_openvino_tells_nobody(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('telemetry was imported')")
    code = """
import torch
from cvt import CvtConfig, CvtForImageClassification
config = CvtConfig(depth=(1, 1, 1))
network = CvtForImageClassification(config).optimize(runtime="openvino")
print(network(torch.zeros(1, 3, 64, 64)).logits.shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("torch.Size"), done.stderr


@torch.inference_mode()
def test_openvino_in_bfloat16_is_near(shallow: CvtForImageClassification) -> None:
    x = images(3, 64, 64)
    out = shallow.optimize(torch.bfloat16, runtime="openvino")(x)
    assert F.cosine_similarity(out.embedding, shallow(x).embedding).min() > 0.999


def test_unknown_runtimes_and_dtypes_are_refused(shallow: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match="runtime must be one of torch, openvino"):
        shallow.optimize(runtime="tensorrt")
    with pytest.raises(ValueError, match="OpenVINO computes in float32, bfloat16 or int8"):
        shallow.optimize(dtype=torch.float16, runtime="openvino")
    with pytest.raises(ValueError, match='runtime="openvino" computes on the CPU, not on cuda'):
        shallow.optimize(device="cuda", runtime="openvino")


def test_int8_needs_its_runtime_and_calibration(shallow: CvtForImageClassification) -> None:
    x = images(2, 64, 64)
    with pytest.raises(ValueError, match='int8 needs runtime="openvino"'):
        shallow.optimize(torch.int8, calibration=x)
    with pytest.raises(ValueError, match="int8 needs calibration="):
        shallow.optimize(torch.int8, runtime="openvino")
    with pytest.raises(ValueError, match=r"calibration= is for dtype=torch\.int8, not "):
        shallow.optimize(torch.bfloat16, runtime="openvino", calibration=x)


@pytest.mark.timeout(900)  # NNCF takes 20 s of CPU: minutes where many tests share the cores
@torch.inference_mode()
def test_int8_of_a_trained_model_agrees() -> None:
    """The demo's model and images, those of calibration left out; as pickled for an actor."""
    model = CvtForImageClassification.from_pretrained(DEMO / "model")
    processor = CvtImageProcessor.from_pretrained(DEMO / "model")
    files = sorted(DEMO.glob("bucket/images/*/*"))
    x = processor([file.read_bytes() for file in files])
    fast = model.optimize(torch.int8, runtime="openvino", calibration=x[::3])
    assert b"FakeQuantize" in fast.converted.xml  # type: ignore[union-attr, operator]
    fast = pickle.loads(pickle.dumps(fast))
    unseen = torch.arange(len(x)) % 3 > 0
    out, expected = fast(x[unseen]), model(x[unseen])
    cosine = F.cosine_similarity(out.embedding, expected.embedding)
    assert cosine.min() > 0.99
    assert cosine.mean() > 0.999
    same = out.logits.argmax(dim=1) == expected.logits.argmax(dim=1)
    assert same.float().mean() > 0.98
    with pytest.raises(ValueError, match="converted for images of 28x28 pixels, not 32x32"):
        fast(torch.zeros(1, 3, 32, 32))


def test_an_unknown_pooling_is_refused(small_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir)
    with pytest.raises(ValueError, match="pooling must be one of cls_norm, cls, mean"):
        model.optimize(pooling="max")
