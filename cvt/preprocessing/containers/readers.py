"""Which formats are read with more care than Pillow alone has."""

from collections.abc import Callable, Mapping

from PIL import Image

from cvt.preprocessing.containers.jpeg import open_jpeg
from cvt.preprocessing.containers.jpeg2000.reader import open_jpeg2000
from cvt.preprocessing.containers.png import open_png
from cvt.preprocessing.containers.tiff.reader import open_tiff

READERS: Mapping[str, Callable[[bytes, int], Image.Image]] = {
    "JPEG": open_jpeg,
    "JPEG2000": open_jpeg2000,
    "PNG": open_png,
    "TIFF": open_tiff,
}
"""By Pillow's name of the format: (data, max_pixels) to an image with its header read.

They raise what Pillow raises, or the ImageDecodeError that says it better.
"""
