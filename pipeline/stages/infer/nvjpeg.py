"""The decoder of NVIDIA's cards, through torchvision, and whether a machine has it.

torchvision is no dependency: it has to fit the PyTorch that is there, and stands beside it on most
machines with a GPU.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pipeline.contract.errors import one_line
from pipeline.stages.infer.faults import is_lost_device

_SECONDS = 300
"""For a process to load PyTorch and to decode a file."""


class NvJpeg:
    """A ``JpegDecoder``."""

    def __init__(self) -> None:
        # It cannot be imported everywhere, and fails in several ways where it does not fit.
        from torchvision.io import ImageReadMode, decode_jpeg

        self.device = torch.device("cuda")
        self._decode, self._mode = decode_jpeg, ImageReadMode.RGB

    def together(self, files: Sequence[bytes]) -> list[Tensor]:
        """The pixels of files that all decode.

        Raises:
            RuntimeError: one of them does not, memory ran out, or the card is lost.
        """
        encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return list(self._decode(encoded, mode=self._mode, device=self.device))

    def decode(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """An error does not say which file it is of, so halves are tried, down to a single one."""
        try:
            return list(self.together(files))
        except RuntimeError as error:
            if is_lost_device(error):
                raise
        if len(files) == 1:
            return [None]
        half = len(files) // 2
        return self.decode(files[:half]) + self.decode(files[half:])


def why_not() -> str | None:
    """Why this machine's GPU does not decode JPEG files; None if it does.

    Another process tries it, so that this one holds no memory of the card.
    """
    if importlib.util.find_spec("torchvision") is None:
        return "torchvision is not installed"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    question = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _try; _try()"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", question],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"torchvision did not decode a file within {_SECONDS} s"
    if asked.returncode == 0:
        return None
    said = asked.stderr.splitlines() or [f"the process ended with {asked.returncode}"]
    return f"torchvision does not decode on it: {one_line(said[-1], 200)}"


def _try() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    NvJpeg().together([buffer.getvalue()])
