"""From the bytes of an image file to an upright RGB image; every failure is an ImageDecodeError.

ImageDecodeError(ValueError)      .code
├── EmptyFileError                empty_file
├── NotAnImageError               not_an_image
├── UnsupportedFormatError        unsupported_format
├── TruncatedImageError           truncated
├── CorruptImageError             corrupt
└── TooManyPixelsError            too_many_pixels
"""

import contextlib
import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

from cvt.errors import (
    CorruptImageError,
    EmptyFileError,
    ImageDecodeError,
    NotAnImageError,
    TooManyPixelsError,
    TruncatedImageError,
    UnsupportedFormatError,
)
from cvt.preprocessing.containers.image import check_size
from cvt.preprocessing.containers.readers import BEYOND_PILLOW, READERS
from cvt.preprocessing.rgb import upright_rgb
from cvt.preprocessing.signatures import ends_early, unsupported_format

DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs: 256 MiB of RGB."""


# Plugins that start another program (Ghostscript), open what lies inside with any plugin (IPTC: an
# EPS in it would be run), only know a format's name, or need another package (FPX, MIC).
_REFUSED = frozenset({"EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC"})
# Tried last: formats without a signature, and those whose signature other files have by chance.
_GUESSED = frozenset({"IM", "IMT", "PCD", "SPIDER", "TGA"})
_WEAK = frozenset({"CUR", "DIB", "FLI", "GBR", "PCX", "PPM", "SGI", "XBM"})
_LATER = _GUESSED | _REFUSED
# A table of failures is read by more people than the files are: messages quote none of their bytes.
_QUOTED = re.compile(r"""(?<![a-zA-Z])b?(?P<mark>['"])(?:\\.|(?!(?P=mark)).)*(?P=mark)?""")
# Formats whose decoders do not distinguish a missing end from a broken middle.
_VAGUE = frozenset({"AVIF", "HEIF", "ICO", "JPEG2000", "JXL", "QOI", "TIFF", "WEBP"})

_TRUNCATED = ("truncated", "not enough", "incomplete", "premature", "only got", "requires a buffer")
_UNSUPPORTED = (
    *("support", "cannot handle", "unimplemented"),
    *("unknown pixel", "unknown data org", "unknown pcx mode"),
)


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode an image file to an upright RGB image; ``rgb.py`` says how other pixels become RGB.

    An animation or a multi-page file gives its first frame, an icon its largest image. The size in
    the header is checked against ``max_pixels`` before anything is decoded. Values above Pillow's
    own limit work without touching its global setting; only for WebP and TIFF does Pillow insist on
    twice that limit, unless the process sets ``PIL.Image.MAX_IMAGE_PIXELS``.

    Raises:
        ImageDecodeError: it cannot be decoded; nothing else is raised.
    """
    with opened(data, max_pixels) as image:
        image.load()
        return upright_rgb(image)


@contextlib.contextmanager
def opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the image with its header read and its size checked, but its pixels not decoded.

    Raises:
        ImageDecodeError: for this, and for whatever goes wrong within the context.
    """
    if not data:
        raise EmptyFileError("the file is empty")
    with _quiet_pillow():
        image = _open(data, max_pixels)
        name = image.format or "the file"
        if min(image.size) < 1:
            raise CorruptImageError(f"{name}: an image of {image.width} x {image.height} pixels")
        check_size(name, image.size, max_pixels)
        try:
            yield image
        except Exception as error:
            raise _failure(data, error, name, is_open=True) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header as Image.open does, but without its bomb check and refused formats."""
    Image.init()
    failures: list[ImageDecodeError] = []
    for name in (*BEYOND_PILLOW, *Image.ID):
        if name not in _LATER and _accepts(name, data):
            try:
                return _create(name, data, max_pixels)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next format may fit
                failures.append(_failure(data, error, name, is_open=False))
    unsupported = unsupported_format(data)
    if unsupported:
        raise UnsupportedFormatError(f"{unsupported} files are not decoded")
    for failure in failures:
        if not isinstance(failure, NotAnImageError):
            raise failure
    for name in Image.ID:
        if name in _GUESSED:
            with contextlib.suppress(Exception):
                return _create(name, data, max_pixels)
    unknown = NotAnImageError("the first bytes are those of no image format")
    raise failures[0] if failures else unknown


def _accepts(name: str, data: bytes) -> bool:
    if name in BEYOND_PILLOW:
        return BEYOND_PILLOW[name](data)
    accept = Image.OPEN[name][1]
    try:
        return accept is not None and bool(accept(data[:16]))
    except (struct.error, IndexError):  # fewer bytes than it looks at
        return False


def _create(name: str, data: bytes, max_pixels: int) -> Image.Image:
    if name in READERS:
        return READERS[name](data, max_pixels)
    return Image.OPEN[name][0](io.BytesIO(data), "")


def _failure(data: bytes, error: Exception, name: str, *, is_open: bool) -> ImageDecodeError:
    """Translate Pillow's reason for giving up into the terms of this module."""
    if isinstance(error, CorruptImageError) and ends_early(data):
        return TruncatedImageError(str(error))
    if isinstance(error, ImageDecodeError):
        return error
    reason = _QUOTED.sub("...", " ".join(str(error).split()))
    text = f"{name}: " + (reason[:200] or type(error).__name__)
    lower = text.lower()
    if isinstance(error, Image.DecompressionBombError):
        return TooManyPixelsError(text)
    if name in _GUESSED or (name in _WEAK and not is_open):
        return NotAnImageError(f"the file resembles {name}, but does not decode ({text})")
    if any(word in lower for word in _TRUNCATED):
        return TruncatedImageError(text)
    if (name in _VAGUE or not is_open) and ends_early(data):
        return TruncatedImageError(text)
    if any(word in lower for word in _UNSUPPORTED):
        return UnsupportedFormatError(text)
    return CorruptImageError(text)


_quiet_lock = threading.Lock()
_quiet_filter = contextlib.ExitStack()
_quiet_depth = 0


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings, also in threads, where catch_warnings alone is not safe.

    The first thread in sets the filter (only for warnings from Pillow's modules), the last one out
    restores what was there.
    """
    global _quiet_depth
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filter.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filter.close()
