"""Bytes of an image file in, an upright RGB image out; whatever goes wrong is an ImageDecodeError.

    ImageDecodeError(ValueError)      .code
    ├── EmptyFileError                empty_file
    ├── NotAnImageError               not_an_image
    ├── UnsupportedFormatError        unsupported_format
    ├── TruncatedImageError           truncated
    ├── CorruptImageError             corrupt
    └── TooManyPixelsError            too_many_pixels

How pixels of other kinds become RGB:

- Transparency (LA, PA, RGBA, a transparent palette entry or colour key) is composited on white:
  that is what viewers show and what transformers' ``do_convert_rgb`` does.
- 16-bit grey keeps its high byte, as Pillow does for 16-bit colour.
- 32-bit integers and floats carry no range of their own: `_grey_to_8_bit` has the rule.
- CMYK, YCbCr, LAB and HSV are converted by Pillow. Colour profiles (ICC) are ignored, as the
  reference preprocessing ignores them.
- EXIF orientation is applied; EXIF data that cannot be read counts as absent.
- Of an animation or a multi-page file the first frame is taken, of an icon the largest image.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from cvt.signatures import ends_early, is_known_image, unsupported_format

DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs: 256 MiB of RGB."""


class ImageDecodeError(ValueError):
    """An image file that could not be decoded; the message is one line, `code` says which kind."""

    code: ClassVar[str]


class EmptyFileError(ImageDecodeError):
    """The file has no bytes."""

    code = "empty_file"


class NotAnImageError(ImageDecodeError):
    """Nothing says that these bytes are an image."""

    code = "not_an_image"


class UnsupportedFormatError(ImageDecodeError):
    """An image or document in a format, or a variant of one, that is not decoded."""

    code = "unsupported_format"


class TruncatedImageError(ImageDecodeError):
    """The end of the file is missing."""

    code = "truncated"


class CorruptImageError(ImageDecodeError):
    """The file is complete, but its content contradicts its format."""

    code = "corrupt"


class TooManyPixelsError(ImageDecodeError):
    """The header announces more pixels than allowed."""

    code = "too_many_pixels"


# Plugins that start another program (Ghostscript) or know a format by name only.
_REFUSED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
# Formats that have no signature, or a weak one: other files are easily taken for them.
_GUESSED = frozenset({"DIB", "IM", "IMT", "IPTC", "PCD", "SPIDER", "TGA"})
_TRUNCATED = ("truncated", "not enough", "incomplete", "premature", "only got", "end of")
_UNSUPPORTED = ("unsupported", "not supported", "not yet supported", "cannot handle", "unknown ")
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode an image file to an upright RGB image.

    The header's size is held against ``max_pixels`` before anything is decoded. Values above
    Pillow's own limit work, without touching Pillow's global setting, for all formats but WebP and
    tiled TIFF, where Pillow stops at twice its limit.

    Raises ImageDecodeError, and nothing else.
    """
    if not data:
        raise EmptyFileError("the file is empty")
    with _quiet_pillow():
        image = _open(data)
        if image.width * image.height > max_pixels:
            raise TooManyPixelsError(
                f"{image.width} x {image.height} is {image.width * image.height} pixels, "
                f"more than the limit of {max_pixels}"
            )
        try:
            image.load()
            return upright_rgb(image)
        except Exception as error:
            raise _failure(data, error, image.format) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as RGB (the module says how), turned as its EXIF orientation says."""
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    if rgb is not image:
        rgb.info = {}  # the EXIF block in it would turn the image a second time
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block fails in countless ways, none matters
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey_to_8_bit(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    rgba = image.convert(straight).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale the first of these ranges that holds all values to 0..255.

    Integers: 0..255, 0..65535, lowest..highest. Floats: 0..1, 0..255, lowest..highest; values that
    are not finite count as the lowest. Modes that say 16 bits are 0..65535 whatever they hold, and
    so are mode I images from PNG and PGM files.
    """
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if image.mode == "F" else values
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    is_16_bit = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    for top in (65535,) if is_16_bit else (1, 255) if image.mode == "F" else (255, 65535):
        if low >= 0 and high <= top:
            low, high = 0, top
            break
    grey = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), 256):  # in strips: the arithmetic is 8 bytes wide
        grey[row : row + 256] = _scaled(values[row : row + 256], low, high)
    return Image.fromarray(grey)


def _scaled(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.generic]:
    if np.issubdtype(values.dtype, np.integer):
        return (values.astype(np.int64) - int(low)) * 256 // (int(high) - int(low) + 1)
    values = np.where(np.isfinite(values), values, low).astype(np.float64)
    return np.rint((values - low) * (255 / ((high - low) or 1)))


def _open(data: bytes) -> Image.Image:
    """Read the header, as Image.open does, with neither its bomb check nor the refused formats."""
    Image.init()
    failure: Exception | None = None
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        if accept and not accept(data[:16]):
            continue
        if name in _REFUSED:
            raise UnsupportedFormatError(f"{name} files are not decoded")
        try:
            image = factory(io.BytesIO(data), "")
        except Exception as error:  # noqa: BLE001 - any failure may mean: try the next format
            failure = failure or error
        else:
            if isinstance(image, ImageFile.StubImageFile):
                raise UnsupportedFormatError(f"{name} files are not decoded")
            return image
    unsupported = unsupported_format(data)
    if unsupported:
        raise UnsupportedFormatError(f"{unsupported} files are not decoded")
    if failure is None or not is_known_image(data):
        raise NotAnImageError(f"the first bytes, {data[:8]!r}, are those of no image format")
    raise _failure(data, failure, None) from failure


def _failure(data: bytes, error: Exception, image_format: str | None) -> ImageDecodeError:
    """Put the reason why Pillow gave up into the terms of this module."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    lower = text.lower()
    if isinstance(error, Image.DecompressionBombError):
        return TooManyPixelsError(text)
    if image_format in _GUESSED:
        return NotAnImageError(f"the file resembles {image_format}, but does not decode: {text}")
    if any(word in lower for word in _UNSUPPORTED):
        return UnsupportedFormatError(text)
    if any(word in lower for word in _TRUNCATED) or ends_early(data):
        return TruncatedImageError(text)
    return CorruptImageError(text)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings to itself; safe in threads, where catch_warnings alone is not.

    The first thread in sets the filter (for warnings from Pillow's modules alone), the last one
    out restores what was there.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)
