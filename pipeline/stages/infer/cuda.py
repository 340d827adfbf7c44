"""One batch in hand on a GPU: pinned memory, a stream, and the network as a CUDA graph.

The recipe of the capture is that of PyTorch's "CUDA semantics", section "CUDA Graphs"
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from pipeline.model.network import Network, Outputs, Pixels

_WARM_UP_RUNS = 3  # before the capture, libraries choose kernels and allocate workspaces
_TIMED_RUNS = 5
_CAPTURING = threading.Lock()


def use_only_share(gpus: float, *, tf32: bool) -> None:
    """Take no more memory than this share of the GPU, and round float32 products only if asked.

    PyTorch's own default lets convolutions round to TF32.
    """
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


class CudaLane:
    """A ``Lane``: uint8 pixels cross the bus from pinned memory, unless they were decoded on the
    card; everything else is there.

    After a smaller batch come rows of an earlier one. They do no harm: nobody reads their results,
    and images do not influence each other inside a network.
    """

    def __init__(
        self, network: Network, shape: tuple[int, int, int, int], device: torch.device
    ) -> None:
        """Capture a network for batches of this shape (B, S, S, 3)."""
        self.batch_size = shape[0]
        self._stream = torch.cuda.Stream(device)
        self._done = torch.cuda.Event(blocking=True)  # a waiting thread leaves its core to others
        self._host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._pixels = torch.randint(256, shape, dtype=torch.uint8, device=device)
        self._graph = torch.cuda.CUDAGraph()
        with _CAPTURING, torch.inference_mode():
            torch.cuda.synchronize(device)  # the weights arrive on a stream of their own
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_RUNS):
                    network(self._pixels)
            self._stream.synchronize()
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._out = network(self._pixels)
        self._results = [_pinned_like(tensor) for tensor in self._out]

    def run(self, pixels: Pixels | Tensor) -> Outputs:
        count = len(pixels)
        if isinstance(pixels, Tensor):  # made on the card, by the caller's stream
            self._stream.wait_stream(torch.cuda.current_stream(pixels.device))
            source = pixels
        else:
            source = self._host[:count]
            np.copyto(source.numpy(), pixels)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._pixels[:count].copy_(source, non_blocking=True)
            self._graph.replay()
            for result, tensor in zip(self._results, self._out, strict=True):
                result[:count].copy_(tensor[:count], non_blocking=True)
            self._done.record()
        self._done.synchronize()
        return Outputs(*(result[:count].clone() for result in self._results))

    def seconds(self) -> float:
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self._stream):
            self._graph.replay()
            started.record()
            for _ in range(_TIMED_RUNS):
                self._graph.replay()
            ended.record()
        ended.synchronize()
        return float(started.elapsed_time(ended)) / 1000 / _TIMED_RUNS


def _pinned_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
