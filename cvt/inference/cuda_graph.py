"""The inference network as a CUDA graph: one launch per batch instead of hundreds of kernels.

The recipe is that of PyTorch's "CUDA semantics", section "CUDA Graphs"
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs): static inputs and outputs, a
warm-up on a side stream, capture, then copy and replay.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cvt.inference.fixed_shape import FixedShape
from cvt.interface.outputs import CvtOutput

# Before capture, libraries choose kernels and allocate workspaces: PyTorch's own recipe has 3 runs.
_WARM_UP_RUNS = 3


class CudaGraphCvt(FixedShape):
    """A network whose kernels are captured once per shape, and replayed as a whole.

    After the rows of a smaller batch come those of an earlier one, which nothing reads: images do
    not interact inside the network. Copies from pinned memory do not wait for the device.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take a network on a CUDA device that returns a CvtOutput.

        Raises:
            ValueError: the network is on another device.
        """
        super().__init__()
        weight = next(network.parameters())
        if weight.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a network on a CUDA device, not {weight.device}")
        self.network = network
        self.dtype, self.device = weight.dtype, weight.device
        self.graph: Any = None
        self.images: Tensor | None = None
        self.out: CvtOutput | None = None

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Capture the network on a static batch of this shape."""
        self.graph = self.images = self.out = None  # frees what was captured before
        with torch.cuda.device(self.device), torch.inference_mode():
            images = torch.zeros(shape, dtype=self.dtype, device=self.device)
            self.images = images.to(memory_format=torch.channels_last)
            self.warm_up(self.images)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.out = self.network(self.images)

    def warm_up(self, images: Tensor) -> None:
        """Run on a side stream: capture must not meet unfinished work of the default stream."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self.network(images)
        torch.cuda.current_stream().wait_stream(side)

    def run(self, pixel_values: Tensor) -> CvtOutput:
        """Copy into the static batch, replay, and copy out what the next replay overwrites."""
        assert self.images is not None  # the base class has called prepare
        assert self.out is not None
        with torch.inference_mode():
            self.images[: len(pixel_values)].copy_(pixel_values, non_blocking=True)
            self.graph.replay()
            logits, embedding = self.out.logits.clone(), self.out.embedding.clone()
            return CvtOutput(logits=logits, embedding=embedding)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "graph": None, "images": None, "out": None}
