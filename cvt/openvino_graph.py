"""A network as a graph of OpenVINO's."""

import sys
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from cvt.export import OUTPUTS, TupleOutputs, quiet_export


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry.

    With it, every conversion forks the process and waits for Intel's server, seconds without
    internet. That OpenVINO and NNCF do without the package openvino_telemetry, should it be
    missing, is why it is made to look so; where one of them was imported before, nothing changes.
    """
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    import openvino

    return cast(ModuleType, openvino)


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
