"""The inference graph in OpenVINO: the fastest way on Intel and AMD CPUs, as an extra."""

from importlib.util import find_spec
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from cvt.inference.fixed_shape import FixedShape, pad_batch
from cvt.inference.int8 import quantized
from cvt.inference.linear import cpu_has
from cvt.inference.openvino_graph import OpenVinoGraph, import_openvino, to_openvino
from cvt.interface.outputs import CvtOutput

_DTYPES: Final = (torch.float32, torch.bfloat16, torch.int8)


class OpenVinoCvt(FixedShape):
    """A network that OpenVINO runs: the same call, `logits` and `embedding` in float32.

    It is compiled for a shape as its base class says, and runs on as many threads as PyTorch has at
    that moment. It can be pickled, and compiles anew where it arrives; `convert` before that spares
    all copies the longer part.
    """

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, calibration: Tensor | None = None
    ) -> None:
        """Take a float32 network on the CPU that returns a CvtOutput.

        Args:
            network: Such as an `InferenceCvt`.
            dtype: torch.float32, torch.bfloat16, or torch.int8 (see `int8.py`), where what is not
                quantised computes in bfloat16 on a CPU that has it, else in float32.
            calibration: For int8 alone, normalised images (N, 3, H, W) like those to come; all
                calls have their H and W.

        Raises:
            ImportError: without the openvino extra.
            ValueError: for another dtype, and for int8 without calibration images.
        """
        super().__init__()
        if find_spec("openvino") is None:
            raise ImportError("the runtime openvino needs packages: pip install openvino nncf")
        if dtype not in _DTYPES:
            raise ValueError(f"OpenVINO computes in float32, bfloat16 or int8, not {dtype}")
        self.dtype = dtype
        self.compiled: Any = None
        self.converted = quantized(network, calibration) if dtype == torch.int8 else None
        self.network = network if self.converted is None else None

    def convert(self, shape: tuple[int, int, int]) -> None:
        """Fix the shape (3, H, W) of the images, and make their graph now."""
        if self.network is not None:
            graph = to_openvino(self.network, (-1, *shape))
            self.converted, self.network = OpenVinoGraph.of(graph, shape[1:]), None

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Build the graph for one shape, and let OpenVINO compile it."""
        self.compiled = import_openvino().compile_model(
            self.graph(shape),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if self._in_bfloat16() else "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                # With it on, two processes would share one core and leave the other idle.
                "ENABLE_CPU_PINNING": False,
            },
        )

    def _in_bfloat16(self) -> bool:
        """Beside int8 only where the CPU has it: emulated, it is nine times slower than float32."""
        return cpu_has(torch.bfloat16) if self.dtype == torch.int8 else self.dtype == torch.bfloat16

    def graph(self, shape: tuple[int, ...]) -> Any:
        """An `openvino.Model` for one shape (B, 3, H, W).

        Raises:
            ValueError: H and W are fixed, to others.
        """
        if self.converted is not None:
            return self.converted.at(shape)
        return to_openvino(cast(nn.Module, self.network), shape)

    def run(self, pixel_values: Tensor) -> CvtOutput:
        """Pad, and compute; results are copies."""
        images = pad_batch(pixel_values.float().cpu(), self.shape[0]).contiguous()
        results = self.compiled(images.numpy(), share_inputs=True)
        logits, embedding = (torch.from_numpy(results[i]) for i in range(2))
        return CvtOutput(logits=logits, embedding=embedding)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "compiled": None}
