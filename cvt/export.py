"""The classifier as a graph for other runtimes: torch.export and ONNX.

The graph is that of `cvt.inference`: BatchNorm is folded away, and the last block computes the
class token alone. The batch, the height and the width stay free.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cvt.inference import InferenceCvt
from cvt.model import CvtForImageClassification

OUTPUTS: Final = ("logits", "embedding")

_EXAMPLE_SIZE: Final = (2, 128, 160)  # batch, height, width: all different, and none of them 1


def export(model: CvtForImageClassification, outputs: Sequence[str] = OUTPUTS) -> ExportedProgram:
    """Trace the model in eval mode; its graph maps pixel_values (B, 3, H, W) to the outputs.

    The graph refuses images below 35 pixels, where the last stage's keys are a single row.

    Args:
        model: In float32; it stays as it is.
        outputs: What the graph returns, a tuple in this order, of OUTPUTS.

    Raises:
        ValueError: for an unknown output.
    """
    return torch.export.export(
        _Outputs(model, outputs),
        (_example(model),),
        dynamic_shapes={"pixel_values": {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}},
    )


def export_onnx(
    model: CvtForImageClassification,
    path: str | os.PathLike[str],
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write one ONNX file whose input is "pixel_values" and whose outputs have their own names.

    Arguments and errors are those of `export`; ImportError without the onnx extra.
    """
    if find_spec("onnxscript") is None:
        raise ImportError("writing ONNX needs onnx and onnxscript: pip install 'cvt-batch[onnx]'")
    torch.onnx.export(
        _Outputs(model, outputs),
        (_example(model),),
        path,
        input_names=["pixel_values"],
        output_names=list(outputs),
        dynamic_shapes={"pixel_values": {0: "batch", 2: "height", 3: "width"}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


class _Outputs(nn.Module):
    """The model with a tuple of tensors as its result."""

    def __init__(self, model: CvtForImageClassification, outputs: Sequence[str]) -> None:
        super().__init__()
        if not outputs or not set(outputs) <= set(OUTPUTS):
            raise ValueError(f"outputs must be of {', '.join(OUTPUTS)}, not {list(outputs)}")
        self.model = InferenceCvt(model)
        self.outputs = outputs
        self.eval()

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        out = self.model(pixel_values)
        return tuple(getattr(out, name) for name in self.outputs)


def _example(model: CvtForImageClassification) -> Tensor:
    batch, height, width = _EXAMPLE_SIZE
    device = next(model.parameters()).device
    return torch.zeros(batch, model.config.num_channels, height, width, device=device)
