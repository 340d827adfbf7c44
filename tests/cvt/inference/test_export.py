"""Exported graphs against eager, at other batch and image sizes than they were traced at."""

from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch

from cvt import CvtForImageClassification
from cvt.inference.export import export_onnx, export_program
from tests.support.models.oracle import difference, images

SIZES = [(1, 224, 224), (3, 97, 140)]


@torch.inference_mode()
def test_torch_export_equals_eager(shallow: CvtForImageClassification) -> None:
    graph = export_program(shallow).module()
    for size in SIZES:
        x = images(*size)
        logits, embedding = graph(x)
        assert difference(logits, shallow(x).logits) < 1e-5
        assert difference(embedding, shallow(x).embedding) < 1e-5


@torch.inference_mode()
def test_onnx_equals_eager(shallow: CvtForImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    outputs = ("embedding", "logits")
    export_onnx(shallow, path, outputs)
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(path)
    assert tuple(output.name for output in session.get_outputs()) == outputs
    for size in SIZES:
        x = images(*size)
        expected = shallow(x)
        results = session.run(None, {"pixel_values": x.numpy()})
        for name, result in zip(outputs, results, strict=True):
            assert difference(torch.from_numpy(result), getattr(expected, name)) < 1e-5


def test_an_unknown_output_is_refused(shallow: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match="outputs must be among logits, embedding"):
        export_program(shallow, ["attentions"])
