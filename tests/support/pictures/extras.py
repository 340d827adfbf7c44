"""HEIC and JPEG XL files, written by the packages that decode them."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image


def gradient(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A picture that no turn or flip leaves as it is."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    bands = [across, down, 255 - across][: len(mode.rstrip("A"))]
    if mode.endswith("A"):
        bands.append(np.where(down > 127, 255, 0))
    return Image.merge(mode, [Image.fromarray(band.astype(np.uint8)) for band in bands])


def heic(image: Image.Image, **options: Any) -> bytes:
    """A HEIC file, lossless but for its colour space."""
    return _heic(image.mode, image.size, image.tobytes(), **options)


def deep_heic(values: np.ndarray[Any, np.dtype[np.uint16]]) -> bytes:
    """Of 16-bit samples (H, W, 3), which become 10 or 12 bits."""
    height, width, _ = values.shape
    return _heic("RGB;16", (width, height), values.tobytes())


def _heic(mode: str, size: tuple[int, int], data: bytes, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    file = pillow_heif.from_bytes(mode, size, data)
    file.save(buffer, **{"quality": -1, "chroma": 444} | options)
    return buffer.getvalue()


def jxl(image: Image.Image, **options: Any) -> bytes:
    """A lossless JPEG XL file."""
    pytest.importorskip("pillow_jxl")
    buffer = io.BytesIO()
    image.save(buffer, "JXL", lossless=True, **options)
    return buffer.getvalue()
