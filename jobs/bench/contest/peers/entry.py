"""What the scripts share: arguments, and marks on the time line, as files that others can see."""

from __future__ import annotations

import argparse
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image

Device = Literal["cpu", "cuda"]
"""Where the network runs: on all cores, or on one card beside them."""

START_SECONDS = 300
"""In which a worker on a GPU has to be ready."""

_READY, _ENDED, _OUTPUT = "ready-", "ended", "output"


@dataclass(frozen=True)
class Entry:
    """What a contestant is told; plain data that travels to its workers."""

    images: str
    """A local directory of JPEG files."""
    model: str
    """A Hugging Face directory."""
    work: str
    """A local directory, empty at the start."""
    dtype: str
    cores: int
    batch_size: int
    device: Device = "cpu"

    @classmethod
    def from_command_line(cls) -> Entry:
        """What this process was told; it ends where the device is not there."""
        parser = argparse.ArgumentParser()
        for name in ("images", "model", "work"):
            parser.add_argument(name)
        parser.add_argument("--dtype", default="float32")
        parser.add_argument("--cores", type=int, default=1)
        parser.add_argument("--batch-size", type=int, default=8)
        parser.add_argument("--device", choices=get_args(Device), default="cpu")
        entry = cls(**vars(parser.parse_args()))
        if entry.on_gpu and not torch.cuda.is_available():
            sys.exit("--device cuda, but torch finds no CUDA device")
        return entry

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def blank_images(self) -> list[Image.Image]:
        """A batch to warm up with."""
        return [Image.new("RGB", (500, 375))] * self.batch_size

    @property
    def output(self) -> str:
        """Where the Parquet goes, a directory that exists."""
        directory = Path(self.work, _OUTPUT)
        directory.mkdir(exist_ok=True)
        return str(directory)

    def mark_ready(self) -> None:
        """A worker holds its model and waits for images."""
        Path(self.work, f"{_READY}{secrets.token_hex(8)}").touch()

    def mark_ended(self) -> None:
        """The Parquet is written."""
        Path(self.work, _ENDED).touch()

    def ready_at(self) -> float:
        """Mean over the workers of the moment from which on they could compute, in seconds since
        the epoch: a worker that starts later has missed as much as one that starts earlier gains.
        """
        marks = [mark.stat().st_mtime for mark in Path(self.work).glob(f"{_READY}*")]
        return sum(marks) / len(marks)

    def ended_at(self) -> float:
        return Path(self.work, _ENDED).stat().st_mtime
