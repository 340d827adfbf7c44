"""What a model actor is given: the network's weights, its preprocessing, and the golden batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import nn

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor
from cvt.inference.openvino import OpenVinoCvt
from pipeline.contract.spec import Dtype, Pooling, Runtime
from pipeline.model.self_check import GoldenBatch

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class ModelBundle:
    """A network as plain data. The driver loads it once; Ray's object store shares the arrays
    with every actor of a node, so that no actor downloads weights."""

    config: CvtConfig
    arrays: dict[str, npt.NDArray[Any]]
    processor: CvtImageProcessor
    golden: GoldenBatch
    graph: OpenVinoCvt | None = None
    """Takes the place of the arrays."""

    @classmethod
    def of(
        cls, model: CvtForImageClassification, processor: CvtImageProcessor, pooling: Pooling
    ) -> ModelBundle:
        arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        return cls(model.config, arrays, processor, GoldenBatch.compute(model, processor, pooling))

    def converted(self, dtype: Dtype, pooling: Pooling) -> ModelBundle:
        """The same for the runtime openvino, so that no actor has to convert it."""
        graph = cast(OpenVinoCvt, self._optimized(DTYPES[dtype], "cpu", pooling, "openvino"))
        graph.convert((self.config.num_channels, self.processor.size, self.processor.size))
        return replace(self, arrays={}, graph=graph)

    def build(
        self, dtype: Dtype, device: torch.device, pooling: Pooling, runtime: Runtime
    ) -> nn.Module:
        """The network in the form that runs fast."""
        if self.graph is not None:
            return self.graph
        return self._optimized(DTYPES[dtype], device, pooling, runtime)

    def _optimized(
        self, dtype: torch.dtype, device: torch.device | str, pooling: Pooling, runtime: Runtime
    ) -> nn.Module:
        model = CvtForImageClassification.from_state(self.config, self.arrays)  # no copies
        return model.optimize(dtype, device, pooling=pooling, runtime=runtime)
