"""Networks that OpenVINO computes, and int8, against eager PyTorch."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cvt import CvtForImageClassification, CvtImageProcessor
from cvt.inference.network import InferenceCvt
from cvt.inference.openvino import OpenVinoCvt
from tests.support.commands import REPOSITORY
from tests.support.models.oracle import (
    difference,
    images,
)

DEMO = REPOSITORY / "jobs" / "demo"


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
config = CvtConfig(embed_dim=(16, 32, 48), num_heads=(1, 2, 3), depth=(1, 1, 1))
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
