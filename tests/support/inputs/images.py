"""Images of seeded noise, as bytes and as files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_images(directory: Path, count: int, *, seed: int = 0) -> list[Path]:
    """JPEG files 0000.jpg, 0001.jpg, ... that all differ."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [directory / f"{number:04d}.jpg" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 50, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def photograph(width: int = 90, height: int = 60, turn: int = 1, **options: Any) -> bytes:
    """Smooth, as photographs are."""
    exif = Image.Exif()
    exif[0x0112] = turn
    smooth = noise(9, 6, seed=width).resize((width, height), Image.Resampling.BICUBIC)
    return encode(smooth, "JPEG", exif=exif, **options)


def gradients(width: int, height: int, waves: float = 9) -> Image.Image:
    """Smooth, and different in every corner."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = (255 * x, 255 * y, 127 + 120 * np.sin(waves * x * y))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


COLOURS = {"ant": (150, 60, 60), "bee": (160, 150, 50), "cow": (90, 90, 110)}


def write_kinds(directory: Path, each: int, *, size: tuple[int, int] = (50, 40)) -> list[Path]:
    """``each`` images of every kind in a directory of its name: its colour, under noise."""
    paths = []
    for seed, (kind, colour) in enumerate(COLOURS.items()):
        rng = np.random.default_rng(seed)
        (directory / kind).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            values = rng.normal(colour, 60, (size[1], size[0], 3)).clip(0, 255)
            path = directory / kind / f"{number:04d}.jpg"
            Image.fromarray(values.astype(np.uint8)).save(path, quality=90)
            paths.append(path)
    return paths
