"""Decoding on the card: JPEG files to pixels where the network computes.

What the card does not decode, the CPU does, image by image; what neither does is a failed row.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from pipeline.contract.errors import DecodeError, RunError, one_line
from pipeline.contract.schema import JPEG, PIXELS, Status
from pipeline.model.network import DevicePreprocessing, Pixels
from pipeline.stages.infer.faults import is_out_of_memory
from pipeline.stages.infer.rows import pixels_of

MOST_BYTES = 512 * 2**20
"""Of decoded images on the card at a time, unless a single one is larger."""
GREY_LEVELS = 3.0
"""How far pixels may be from those of the CPU, on average over an image of the self-check."""


class JpegDecoder(Protocol):
    """What a kind of device has of its own: its decoder. May be called by several threads."""

    @property
    def device(self) -> torch.device:
        """Where the pixels are afterwards."""

    def decode(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """RGB uint8 (3, H, W) of each file, as stored; None of one that it cannot decode."""


class _File(NamedTuple):
    data: bytes
    orientation: int
    width: int
    """Of the upright image."""
    height: int

    @property
    def decoded_bytes(self) -> int:
        return 3 * self.width * self.height


@dataclass(frozen=True)
class DevicePixels:
    """Completes batches in which some images are still JPEG files."""

    decoder: JpegDecoder
    preprocessing: DevicePreprocessing

    def of(self, batch: pa.Table) -> tuple[pa.Table, Tensor]:
        """The rows without files and pixels, and the pixels (B, S, S, 3) of those that are ok."""
        rows, size = batch.drop_columns([PIXELS.name, JPEG.name]), self.preprocessing.size
        has_file = pc.is_valid(batch[JPEG.name]).to_numpy()
        has_pixels = pc.is_valid(batch[PIXELS.name]).to_numpy()
        device = self.decoder.device
        pixels = torch.empty((len(rows), size, size, 3), dtype=torch.uint8, device=device)
        pixels[torch.from_numpy(has_pixels)] = self._moved(pixels_of(batch[PIXELS.name], size))
        is_ok = has_file | has_pixels
        errors: dict[int, DecodeError] = {}
        for row, found in zip(np.flatnonzero(has_file), self._decoded(_files(batch)), strict=True):
            if isinstance(found, DecodeError):
                errors[int(row)], is_ok[row] = found, False
            else:
                pixels[int(row)] = found
        return _failed(rows, errors), pixels[torch.from_numpy(is_ok)]

    def _decoded(self, files: Sequence[_File]) -> Iterator[Tensor | DecodeError]:
        for some in _groups(files):
            images = self.decoder.decode([file.data for file in some])
            for file, image in zip(some, images, strict=True):
                pixels = self._resized(file, image)
                yield self._on_cpu(file) if pixels is None else pixels

    def _resized(self, file: _File, image: Tensor | None) -> Tensor | None:
        """None if the card has not decoded the file, or has no room to resize it."""
        if image is None or {*image.shape[1:]} != {file.width, file.height}:
            return None
        try:
            return self.preprocessing.resize(image, file.orientation)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _on_cpu(self, file: _File) -> Tensor | DecodeError:
        limit = file.width * file.height  # that of the run was checked with the header
        try:
            decoded = self.preprocessing.decode(file.data, mode="fast", max_pixels=limit)
        except DecodeError as error:
            return error
        return self._moved(decoded.pixels)

    def _moved(self, pixels: Pixels) -> Tensor:
        writable = pixels if pixels.flags.writeable else pixels.copy()
        return torch.from_numpy(writable).to(self.decoder.device)

    def check(self, photograph: Pixels) -> None:
        """Hold what the card makes of a JPEG file against what the CPU makes of it.

        Args:
            photograph: (H, W, 3), smooth as photographs are.

        Raises:
            RunError: it does not decode the file, or is too far off.
        """
        buffer = io.BytesIO()
        Image.fromarray(photograph).save(buffer, "JPEG", quality=90)
        file, limit = buffer.getvalue(), photograph.size
        header = self.preprocessing.header(file, max_pixels=limit)
        (image,) = self.decoder.decode([file])
        if header is None or image is None:
            raise RunError("the GPU does not decode a common JPEG file; use <model.decode> fast")
        found = self.preprocessing.resize(image, header.orientation).cpu().numpy()
        exact = self.preprocessing.decode(file, mode="exact", max_pixels=limit).pixels
        off = float(np.abs(found.astype(np.int16) - exact).mean())
        if off > GREY_LEVELS:
            raise RunError(
                f"the GPU's decoder is {off:.1f} grey levels off on average, where {GREY_LEVELS:g} "
                "are allowed; use <model.decode> fast"
            )


def _files(batch: pa.Table) -> list[_File]:
    """Those of the rows that have one, in their order."""
    with_file = batch.filter(pc.is_valid(batch[JPEG.name]))
    columns: list[list[Any]] = [with_file[name].to_pylist() for name in ("width", "height")]
    jpegs = with_file[JPEG.name].to_pylist()
    return [
        _File(jpeg["file"], jpeg["orientation"], width, height)
        for jpeg, width, height in zip(jpegs, *columns, strict=True)
    ]


def _groups(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Files that may be decoded together."""
    group: list[_File] = []
    size = 0
    for file in files:
        if group and size + file.decoded_bytes > MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.decoded_bytes
    if group:
        yield group


def _failed(rows: pa.Table, errors: dict[int, DecodeError]) -> pa.Table:
    """The rows with some of them as they would be had they failed before."""
    if not errors:
        return rows
    changed = rows.to_pylist()
    for row, error in errors.items():
        changed[row] |= {
            "status": Status.FAILED.value,
            "error_code": error.code,
            "error_message": one_line(error),
            "width": None,
            "height": None,
            "_thumbnail": None,
        }
    return pa.Table.from_pylist(changed, schema=rows.schema)
