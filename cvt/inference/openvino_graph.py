"""A network as a graph of OpenVINO's."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self, cast

import torch
from torch import nn

from cvt.inference.export import OUTPUTS, TupleOutputs, quiet_export


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry.

    With it, every conversion forks the process and waits for Intel's server, seconds without
    internet. That OpenVINO and NNCF do without the package openvino_telemetry, should it be
    missing, is why it is made to look so; where one of them was imported before, nothing changes.
    """
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    import openvino

    return cast(ModuleType, openvino)


@dataclass(frozen=True)
class OpenVinoGraph:
    """A graph in OpenVINO's own format, as bytes, so that it can be pickled."""

    xml: bytes
    weights: bytes
    size: tuple[int, int]
    """(H, W) of the images, which is fixed; the batch is free."""

    @classmethod
    def of(cls, model: Any, size: tuple[int, int]) -> Self:
        """Take an `openvino.Model` with a free batch."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "graph.xml")
            import_openvino().save_model(model, path, compress_to_fp16=False)
            return cls(path.read_bytes(), path.with_suffix(".bin").read_bytes(), size)

    def at(self, shape: tuple[int, ...]) -> Any:
        """An `openvino.Model` for one shape (B, 3, H, W). ValueError for another size."""
        if shape[2:] != self.size:
            (height, width), other = self.size, shape[2:]
            raise ValueError(
                f"this network was converted for images of {height}x{width} pixels, not "
                f"{other[0]}x{other[1]}"
            )
        graph = import_openvino().Core().read_model(self.xml, self.weights)
        graph.reshape(list(shape))
        return graph


def to_openvino(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """An `openvino.Model` of a network that returns a CvtOutput; its results are OUTPUTS.

    OpenVINO reads TorchScript, which takes a third of the seconds of torch.export here, and is as
    fast after.

    Args:
        network: In float32 on the CPU.
        shape: (B, 3, H, W) of the images; a batch of -1 stays free.
    """
    openvino = import_openvino()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    batch, *size = shape
    with quiet_export():
        decoder = TorchScriptPythonDecoder(
            TupleOutputs(network, OUTPUTS),
            example_input=torch.zeros(2 if batch < 0 else batch, *size),
            trace_kwargs={"check_trace": False},  # or it would be traced twice, and compared
        )
        return openvino.convert_model(decoder, input=list(shape))
