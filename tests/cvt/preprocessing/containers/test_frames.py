"""Animations: a first frame smaller than its canvas, or larger than its file says."""

import random
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvt.preprocessing.containers.frames.av1 import frame_sizes
from cvt.preprocessing.processor import CvtImageProcessor, DecodeMode
from tests.support.inputs.images import encode
from tests.support.pictures.animations import Box, gif, webp
from tests.support.pictures.outcome import MODES, code_of, pixels

CANVAS = (20, 16)
BOX = (4, 6, 12, 12)


def expected(box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    shown = np.full((CANVAS[1], CANVAS[0], 3), 255)
    shown[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
    return shown


FILES = {
    "GIF": gif(CANVAS, BOX),
    "GIF with a background": gif(CANVAS, BOX, background=1),
    "GIF with a transparent colour": gif(CANVAS, BOX, transparent=True),
    "WebP": webp(CANVAS, BOX, has_opacity=False),
    "WebP with opacity": webp(CANVAS, BOX, has_opacity=True),
}


@pytest.mark.parametrize("name", FILES)
def test_a_first_frame_smaller_than_its_canvas(name: str) -> None:
    assert np.array_equal(pixels(FILES[name]), expected(BOX))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FILES)
def test_every_mode(name: str, mode: DecodeMode) -> None:
    processor = CvtImageProcessor(size=384)
    decoded = processor.pixels_from_bytes(FILES[name], mode=mode)
    assert (decoded.width, decoded.height) == CANVAS
    assert decoded.pixels[0, 0].tolist() == decoded.pixels[-1, -1].tolist() == [255] * 3
    assert decoded.pixels[216, 150].tolist() == [255, 0, 0]


def test_a_first_frame_that_fills_its_canvas() -> None:
    whole = (0, 0, *CANVAS)
    for data in (gif(CANVAS, whole), webp(CANVAS, whole, has_opacity=False)):
        assert np.array_equal(pixels(data), expected(whole))


def test_a_first_frame_larger_than_its_canvas() -> None:
    """Then the canvas grows, as in browsers."""
    assert np.array_equal(pixels(gif((3, 3), (0, 0, 8, 6))), np.tile((255, 0, 0), (6, 8, 1)))


def test_the_limit_is_asked_before_a_canvas_is_made() -> None:
    data = bytearray(webp(CANVAS, BOX, has_opacity=True))
    data[24:30] = struct.pack("<I", 16_000)[:3] * 2
    assert code_of(bytes(data)) == "too_many_pixels"
    assert code_of(gif((60_000, 60_000), BOX)) == "too_many_pixels"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"speed": 10}], ids=str)
def test_frames_of_avif_say_how_large_they_are(mode: str, options: dict[str, Any]) -> None:
    """One header for the colours, one for the opacity if that varies; one more for each track."""
    image = Image.linear_gradient("L").resize((41, 33)).convert(mode)
    assert {*frame_sizes(encode(image, "AVIF", **options))} == {(41, 33)}
    animated = encode(image, "AVIF", save_all=True, append_images=[image], **options)
    assert {*frame_sizes(animated)} == {(41, 33)}
    assert code_of(animated, max_pixels=41 * 33) == "ok"


def test_damaged_avif_has_the_sizes_that_can_be_read() -> None:
    good = encode(Image.new("RGBA", (41, 33), (9, 8, 7, 6)), "AVIF")
    draw = random.Random(0)
    for _ in range(3000):
        data = bytearray(good[: draw.randrange(len(good))] if draw.random() < 0.3 else good)
        for _ in range(draw.choice([1, 5]) if data else 0):
            data[draw.randrange(len(data))] = draw.randrange(256)
        assert len([*frame_sizes(bytes(data))]) < 1000
