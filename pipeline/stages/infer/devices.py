"""What an actor computes on: pixels in, outputs on the host."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.model.bundle import ModelBundle
from pipeline.model.network import Network, Outputs, Pixels
from pipeline.stages.infer.cuda import CudaLane, use_only_share
from pipeline.stages.infer.jpegs import DevicePixels
from pipeline.stages.infer.lanes import Lanes, best_batch_size
from pipeline.stages.infer.nvjpeg import NvJpeg
from pipeline.stages.infer.settings import InferSettings


class Device(Protocol):
    """A network where it computes. May be called by as many threads as the actor has calls."""

    @property
    def name(self) -> str:
        """As a person knows it."""

    def run(self, pixels: Pixels | Tensor) -> Outputs:
        """The outputs, on the host, for uint8 pixels (B, S, S, 3), an array or on this device; B is
        1 or more."""


class Cpu:
    """The network on this process's threads."""

    name = "the CPU"

    def __init__(self, bundle: ModelBundle, settings: InferSettings) -> None:
        torch.set_num_threads(settings.threads)
        self.network: Network = bundle.network.build(torch.device("cpu"))
        if bundle.form.runtime == "openvino":  # its first call decides the shape of all others
            self.run(np.zeros((settings.batch_size, bundle.size, bundle.size, 3), np.uint8))

    @torch.inference_mode()
    def run(self, pixels: Pixels | Tensor) -> Outputs:
        return self.network(pixels)


class Gpu:
    """The network on a GPU, captured once for each batch in hand."""

    def __init__(self, bundle: ModelBundle, settings: InferSettings) -> None:
        device = torch.device("cuda")
        self.name = torch.cuda.get_device_name(device)
        use_only_share(settings.gpus, tf32=bundle.form.dtype == "tf32")
        network = bundle.network.build(device)
        shape = (bundle.size, bundle.size, 3)
        size, reporter = settings.batch_size, settings.reporter
        if settings.find_batch_size:
            found = best_batch_size(lambda n: CudaLane(network, (n, *shape), device), size)
            size = int(reporter.agree(batch_size=found))
        if settings.compile:
            network = bundle.network.build(device, compile=True)
        self.lanes = Lanes(
            lambda n: CudaLane(network, (n, *shape), device), size, settings.calls, reporter.say
        )

    def run(self, pixels: Pixels | Tensor) -> Outputs:
        return self.lanes.run(pixels)


def device(bundle: ModelBundle, settings: InferSettings) -> Device:
    """The network of a bundle, ready on what the settings name."""
    return Gpu(bundle, settings) if settings.gpus else Cpu(bundle, settings)


def device_pixels(settings: InferSettings) -> DevicePixels | None:
    """What decodes JPEG files beside the network; None if none arrive."""
    if settings.preprocessing is None:
        return None
    return DevicePixels(NvJpeg(), settings.preprocessing)
