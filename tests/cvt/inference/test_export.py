"""Exported graphs against eager, at other batch and image sizes than they were traced at."""

from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch

from cvt import CvtConfig, CvtForImageClassification
from cvt.inference.export import export_onnx, export_program
from tests.support.models.oracle import SMALL, difference, images, randomise

SIZES = [(1, 224, 224), (3, 97, 140)]


@pytest.fixture(scope="module")
def model() -> CvtForImageClassification:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL | {"depth": [1, 1, 1]}))
    randomise(model, seed=0)
    return model.eval()


@torch.inference_mode()
def test_torch_export_equals_eager(model: CvtForImageClassification) -> None:
    graph = export_program(model).module()
    for size in SIZES:
        x = images(*size)
        logits, embedding = graph(x)
        assert difference(logits, model(x).logits) < 1e-5
        assert difference(embedding, model(x).embedding) < 1e-5


@torch.inference_mode()
def test_onnx_equals_eager(model: CvtForImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    outputs = ("embedding", "logits")
    export_onnx(model, path, outputs)
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(path)
    assert tuple(output.name for output in session.get_outputs()) == outputs
    for size in SIZES:
        x = images(*size)
        expected = model(x)
        results = session.run(None, {"pixel_values": x.numpy()})
        for name, result in zip(outputs, results, strict=True):
            assert difference(torch.from_numpy(result), getattr(expected, name)) < 1e-5


def test_an_unknown_output_is_refused(model: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match="outputs must be among logits, embedding"):
        export_program(model, ["attentions"])
