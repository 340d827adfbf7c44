"""Speed and deviation of every decode mode, on one thread."""

from __future__ import annotations

import time
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from cvt import CvtImageProcessor
from pipeline.contract.spec import CpuDecodeMode, InputSpec
from pipeline.sources.inventory import inventory
from pipeline.storage.files import read_bytes

Pixels = npt.NDArray[np.int16]


def bench_decode(inputs: list[str], size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Images per CPU-second of each decode mode, and how far it is from the exact one.

    The modes take turns, each on all images; the speed is that of the median round.
    """
    torch.set_num_threads(1)
    spec = InputSpec(uris=tuple(inputs), format="images")
    uris = [uri for table in inventory(spec) for uri in table["uri"].to_pylist()]
    images = [read_bytes(uri) for uri in uris]
    processor = CvtImageProcessor(size=size)
    seconds: dict[str, list[float]] = {mode: [] for mode in get_args(CpuDecodeMode)}
    pixels: dict[str, list[Pixels]] = {}
    for _ in range(rounds):
        for mode, taken in seconds.items():
            started = time.process_time()
            decoded = [processor.pixels_from_bytes(data, mode=mode).pixels for data in images]  # type: ignore[arg-type]
            taken.append(time.process_time() - started)
            pixels[mode] = [image.astype(np.int16) for image in decoded]
    speed = {mode: len(images) / float(np.median(taken)) for mode, taken in seconds.items()}
    return {
        mode: {
            "images_per_cpu_second": round(rate, 1),
            "ratio": round(rate / speed["exact"], 2),
            "max_grey_levels_off": max(
                int(abs(a - b).max()) for a, b in zip(pixels[mode], pixels["exact"], strict=True)
            ),
        }
        for mode, rate in speed.items()
    }
