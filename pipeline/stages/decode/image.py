"""One image: from its bytes to what its row says of it, and its pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.contract.errors import DecodeError, ItemError, one_line
from pipeline.contract.schema import JPEG, TRAINING_PICTURE
from pipeline.model.network import Pixels
from pipeline.model.training.pictures import picture_of
from pipeline.monitoring.review.pictures import small_jpeg
from pipeline.stages.decode.settings import DecodeSettings

THUMBNAIL_PIXELS = 128


class Found(NamedTuple):
    """What is known of an image."""

    columns: dict[str, Any]
    """Of its row."""
    pixels: Pixels | None
    """(S, S, 3); None if the actor decodes the file."""


def read_image(data: bytes, settings: DecodeSettings, *, with_thumbnail: bool) -> Found:
    """Decode an image file, or read the header if that is enough.

    Raises:
        DecodeError: it cannot be decoded.
    """
    header = settings.header(data)
    if header is None:
        image = settings.decode(data)
        found: dict[str, Any] = {"width": image.width, "height": image.height}
        if with_thumbnail:
            found["_thumbnail"] = small_jpeg(image.pixels, THUMBNAIL_PIXELS)
        if settings.pictures is not None:
            picture = picture_of(data, settings.pictures, settings.max_pixels)
            found[TRAINING_PICTURE.name] = picture
        return Found(found, image.pixels)
    found = {"width": header.width, "height": header.height}
    if with_thumbnail:
        found["_thumbnail"] = small_jpeg(settings.decode(data).pixels, THUMBNAIL_PIXELS)
    return Found(found | {JPEG.name: {"file": data, "orientation": header.orientation}}, None)


def failure(error: BaseException) -> ItemError:
    """What an image's row says of whatever ``read_image`` raised."""
    if isinstance(error, ItemError):
        return error
    text = f"the decoder fails with {type(error).__name__}: {one_line(error)}"
    return DecodeError("corrupt", one_line(text))
