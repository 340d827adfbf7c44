"""An image whose pixels Pillow decodes, and something of ours then mends."""

from collections.abc import Callable
from typing import Any

from PIL import Image


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
