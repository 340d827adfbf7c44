"""What of an image's file is kept for training; the same for every family."""

from __future__ import annotations

from cvt.errors import ImageDecodeError
from cvt.training.pictures.smaller import smaller_picture
from pipeline.contract.errors import DecodeError

__all__ = ["picture_of"]


def picture_of(data: bytes, short_side: int, max_pixels: int) -> bytes:
    """As ``smaller_picture``.

    Raises:
        DecodeError: it cannot be decoded.
    """
    try:
        return smaller_picture(data, short_side, max_pixels)
    except ImageDecodeError as error:
        raise DecodeError(error.code, str(error)) from error
