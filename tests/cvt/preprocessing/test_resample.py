"""resize_window equals Pillow's resize and crop, bit for bit, and stays small."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cvt.preprocessing.resample import resize_window

FILTERS = [Image.Resampling(f) for f in range(6)]


def random_image(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise, or black and white alone, at which filters overshoot most."""
    levels = (
        np.array([0, 255], np.uint8) if random.random() < 0.3 else np.arange(256, dtype=np.uint8)
    )
    return Image.fromarray(random.choice(levels, (height, width, 3)))


def assert_equals_pillow(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    for resample in FILTERS:
        expected = np.asarray(image.resize(size, resample).crop(box))
        window = resize_window(image, size, box, resample)
        assert window.dtype == np.uint8
        assert np.array_equal(window, expected), (image.size, size, box, resample.name)


@pytest.mark.parametrize("seed", range(8))
def test_any_size_and_window(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(12):
        width, height, new_width, new_height = (
            np.exp(random.uniform(0, 6.3, 4)).astype(int).tolist()
        )
        left, right = sorted(random.choice(new_width + 1, 2, replace=False).tolist())
        top, bottom = sorted(random.choice(new_height + 1, 2, replace=False).tolist())
        image = random_image(random, width, height)
        assert_equals_pillow(image, (new_width, new_height), (left, top, right, bottom))


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((400, 3), (34133, 256)),
        ((3, 400), (256, 34133)),
        ((1, 300), (32, 9600)),
        ((65000, 2), (32500, 1)),
        ((9000, 300), (960, 32)),
        ((300, 9000), (32, 960)),  # Pillow 13 runs the vertical pass first here
        ((256, 4000), (256, 4000)),
        ((256, 4000), (256, 500)),
        ((4000, 256), (500, 256)),
    ],
)
def test_strips(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = random_image(np.random.default_rng(0), *source)
    left, top = max(size[0] // 2 - 16, 0), max(size[1] // 2 - 16, 0)
    box = (left, top, min(left + 33, size[0]), min(top + 33, size[1]))
    assert_equals_pillow(image, size, box)


def test_refuses_other_filters() -> None:
    with pytest.raises(ValueError, match="no filter 6"):
        resize_window(Image.new("RGB", (9, 9)), (3, 3), (0, 0, 1, 1), 6)


MEASURE = """
from PIL import Image
from cvt import CvtImageProcessor

def peak():
    return int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1])

processor = CvtImageProcessor()
processor.pixels(Image.new("RGB", (300, 300)))
for size in [(4000, 3), (3, 4000), (1, 3000), (65000, 2), (2, 65000), (8_000_000, 1)]:
    image = Image.new("RGB", size)
    before = peak()
    assert processor.pixels(image).shape == (224, 224, 3)
    print(size, peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_strips() -> None:
    """Peak of the process in kB. Resized whole, the first takes 350 MB and the last 2 TB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    grown = [int(kilobytes) for kilobytes in re.findall(r"\) (\d+)$", run.stdout, re.MULTILINE)]
    assert len(grown) == 6
    assert max(grown) < 4000, run.stdout
