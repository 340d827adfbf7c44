"""The inference graph in OpenVINO: the fastest way on Intel and AMD CPUs, as an extra."""

from importlib.util import find_spec
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn

from cvt.export import OUTPUTS, quiet_export, trace
from cvt.inference import InferenceCvt
from cvt.outputs import CvtOutput

_PRECISIONS: Final = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVinoCvt(nn.Module):
    """An InferenceCvt that OpenVINO runs: the same call, `logits` and `embedding` in float32.

    It is compiled on the first call, for that call's shape, which takes seconds. A smaller batch
    is padded to it; a larger one, or another image size, compiles again. It runs on as many threads
    as PyTorch has at that moment.
    """

    def __init__(self, network: InferenceCvt, dtype: torch.dtype) -> None:
        """Take a float32 network on the CPU, to compute in float32 or bfloat16.

        Raises:
            ImportError: without the openvino extra.
            ValueError: for another dtype.
        """
        super().__init__()
        if find_spec("openvino") is None:
            raise ImportError("the runtime openvino needs: pip install 'cvt-batch[openvino]'")
        if dtype not in _PRECISIONS:
            raise ValueError(f"OpenVINO computes in float32 or bfloat16, not {dtype}")
        self.network = network
        self.precision = _PRECISIONS[dtype]
        self.shape: tuple[int, ...] = (0, 0, 0, 0)
        self.compiled: Any = None

    def forward(self, pixel_values: Tensor) -> CvtOutput:
        """Classify normalised images (B, 3, H, W) of any floating dtype."""
        batch, *size = pixel_values.shape
        if batch > self.shape[0] or tuple(size) != self.shape[1:]:
            self.compile_for(pixel_values)
        padding = (0, 0) * 3 + (0, self.shape[0] - batch)
        images = F.pad(pixel_values.float().cpu(), padding).contiguous()
        results = self.compiled(images.numpy(), share_inputs=True)
        logits, embedding = (torch.from_numpy(results[i][:batch]) for i in range(2))
        return CvtOutput(logits, embedding)

    def compile_for(self, pixel_values: Tensor) -> None:
        """Build the graph for one shape, and let OpenVINO compile it."""
        import openvino

        with quiet_export():
            program = trace(self.network, OUTPUTS, torch.zeros(pixel_values.shape))
            model = openvino.convert_model(program)
        self.compiled = openvino.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": self.precision,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                # With it on, two processes would share one core and leave the other idle.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.shape = tuple(pixel_values.shape)
