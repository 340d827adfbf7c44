"""What the readers have in common: the limit, and pixels that are made when they are asked for."""

from collections.abc import Callable
from typing import Any

from PIL import Image

from cvt.errors import TooManyPixelsError


class Repaired(Image.Image):
    """Header and orientation of ``source``; pixels as ``repair`` makes them of the loaded source.

    repair: gets the decoded image and returns one of the same size, of any mode; called once, when
        the pixels are first asked for.
    """

    def __init__(self, source: Image.Image, repair: Callable[[Image.Image], Image.Image]) -> None:
        super().__init__()
        self.format = source.format
        self._mode = source.mode
        self._size = source.size
        self._source: Image.Image | None = source
        self._repair = repair
        self.info = source.info

    def load(self) -> Any:
        source, self._source = self._source, None
        if source is not None:
            source.load()
            image = self._repair(source)
            image.load()
            self._exif = source.getexif()
            self._mode, self._size, self.im = image.mode, image.size, image.im
            self.palette, self.info = image.palette, image.info
        return super().load()

    def getexif(self) -> Image.Exif:
        """Of the source, whose decoding may change it."""
        self.load()
        return super().getexif()


def check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise TooManyPixelsError for a larger image; name: of its format."""
    width, height = size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{name}: {width} x {height} is {width * height} pixels, more than the limit of "
            f"{max_pixels}"
        )


def header(name: str, size: tuple[int, int]) -> Image.Image:
    """An image of a format (Pillow's name) and a size (width, height), without pixels."""
    image = Image.Image()
    image.format = name
    image._mode, image._size = "RGB", size
    return image
