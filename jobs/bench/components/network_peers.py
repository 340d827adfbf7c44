"""transformers' CvT as people run it elsewhere, to compare ours with (see ``network``)."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvt.checkpoints.pretrained import reference_state
from cvt.inference.export import OUTPUTS, write_onnx
from cvt.interface.outputs import CvtOutput
from cvt.model import CvtForImageClassification


class TransformersCvt(nn.Module):
    """transformers' classifier with the weights of one of ours, and with our outputs.

    ``embedding`` is the input of its head; like all else, it has the dtype of the weights.
    """

    def __init__(self, model: CvtForImageClassification) -> None:
        """Build it with the weights of ``model``.

        Raises:
            ImportError: transformers is not installed.
        """
        super().__init__()
        import transformers

        kind: Any = transformers.CvtForImageClassification
        theirs = kind(transformers.CvtConfig.from_dict(model.config.to_dict()))
        theirs.load_state_dict(reference_state(model))
        self.head: nn.Module = theirs.classifier
        theirs.classifier = nn.Identity()  # so that its "logits" are the input of the head
        self.network = theirs
        self.eval().requires_grad_(False)

    def forward(self, pixel_values: Tensor) -> CvtOutput:
        """Classify normalised images (B, 3, H, W) of any floating dtype."""
        embedding = self.network(pixel_values.to(self.network.dtype)).logits
        return CvtOutput(logits=self.head(embedding), embedding=embedding)


def onnxruntime_of(network: nn.Module, images: Tensor) -> Callable[[Tensor], CvtOutput]:
    """The network's graph for the shape of the images, run by onnxruntime in float32."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_onnx(network, path, OUTPUTS, torch.zeros_like(images))
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(images: Tensor) -> CvtOutput:
        results = session.run(None, {"pixel_values": images.numpy()})
        logits, embedding = map(torch.from_numpy, results)
        return CvtOutput(logits=logits, embedding=embedding)

    return run
