"""The classifier as a graph for other runtimes: torch.export and ONNX.

The graph is that of ``cvt.inference.network``: BatchNorm is folded away, and the last block
computes the class token alone. Batch, height and width stay dynamic.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cvt.inference.network import Classifier, InferenceCvt

OUTPUTS: Final = ("logits", "embedding")

_EXAMPLE_SIZE: Final = (2, 128, 160)  # batch, height, width: all different, and none of them 1


def export_program(model: Classifier, outputs: Sequence[str] = OUTPUTS) -> ExportedProgram:
    """Trace the model in eval mode; its graph maps pixel_values (B, 3, H, W) to the outputs.

    The graph refuses images below 35 pixels, where the last stage has a single row of keys.

    Args:
        model: In float32; it is not changed.
        outputs: Names from OUTPUTS; the graph returns a tuple in this order.

    Raises:
        ValueError: an output is unknown.
    """
    free = {"pixel_values": {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    return trace(InferenceCvt(model), outputs, _example(model), free)


def trace(
    network: nn.Module,
    outputs: Sequence[str],
    pixel_values: Tensor,
    dynamic_shapes: dict[str, Any] | None = None,
) -> ExportedProgram:
    """Trace a network that returns a CvtOutput and has ordinary weights.

    The graph is for the example's shape unless dynamic shapes are given. Errors are those of
    ``export_program``.
    """
    with quiet_export():
        return torch.export.export(
            TupleOutputs(network, outputs), (pixel_values,), dynamic_shapes=dynamic_shapes
        )


def export_onnx(
    model: Classifier,
    path: str | os.PathLike[str],
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write one ONNX file whose input is "pixel_values" and whose outputs have their own names.

    Arguments and errors are those of ``export_program``.

    Raises:
        ImportError: the onnx extra is not installed.
    """
    free = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}
    write_onnx(InferenceCvt(model), path, outputs, _example(model), free)


def write_onnx(
    network: nn.Module,
    path: str | os.PathLike[str],
    outputs: Sequence[str],
    pixel_values: Tensor,
    dynamic_shapes: dict[str, Any] | None = None,
) -> None:
    """Write any network that returns a CvtOutput, with the arguments of ``trace``.

    Errors are those of ``export_onnx``.
    """
    if find_spec("onnxscript") is None:
        raise ImportError("writing ONNX needs packages: pip install onnx onnxruntime onnxscript")
    with quiet_export():
        torch.onnx.export(
            TupleOutputs(network, outputs),
            (pixel_values,),
            path,
            input_names=["pixel_values"],
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def quiet_export() -> Iterator[None]:
    """No gradients, and no warnings from the exporters about their own internals."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean")
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        yield


class TupleOutputs(nn.Module):
    """A network that returns a CvtOutput, made to return a tuple of tensors."""

    def __init__(self, network: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        if not outputs or not set(outputs) <= set(OUTPUTS):
            raise ValueError(f"outputs must be among {', '.join(OUTPUTS)}, not {list(outputs)}")
        self.network = network
        self.outputs = outputs
        self.eval()

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        out = self.network(pixel_values)
        return tuple(getattr(out, name) for name in self.outputs)


def _example(model: Classifier) -> Tensor:
    batch, height, width = _EXAMPLE_SIZE
    device = model.norm.weight.device
    return torch.zeros(batch, model.config.num_channels, height, width, device=device)
