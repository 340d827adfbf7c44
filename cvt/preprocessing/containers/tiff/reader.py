"""TIFF files: who decodes them, Pillow or `samples.py`, and what has to hold before."""

import io

from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cvt.errors import UnsupportedFormatError
from cvt.preprocessing.containers.image import Repaired
from cvt.preprocessing.containers.tiff.directory import Directory
from cvt.preprocessing.containers.tiff.layout import (
    BLACK_IS_ZERO,
    BYTES,
    CCITT,
    CMYK,
    LAB,
    PALETTE,
    RAW,
    RGB,
    THUNDERSCAN,
    UNSIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
)
from cvt.preprocessing.containers.tiff.pieces import Pieces
from cvt.preprocessing.containers.tiff.raw import hides_its_picture
from cvt.preprocessing.containers.tiff.samples import check_samples, decode_samples

_ORIENTATION, _XMP = 274, 700
# All that pixels and orientation need: Pillow sees no other field.
_KEPT = frozenset(
    {*range(254, 260), 266, _ORIENTATION, 277, 278, 292, 293, 317, 320}
    | {322, 323, 347, *range(512, 522), *range(529, 533), _XMP}
)
# Bits of a sample, where a compression is for others than 8.
_WIDTHS = {**dict.fromkeys(CCITT, 1), THUNDERSCAN: 4}
_PLAIN = {
    *((WHITE_IS_ZERO, 1), (BLACK_IS_ZERO, 1), (RGB, 3), (RGB, 4), (PALETTE, 1), (CMYK, 4)),
    *((YCBCR, 3), (LAB, 3)),
}


def open_tiff(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a TIFF file.

    Raises UnsupportedFormatError for raws and for samples without a known meaning,
    TooManyPixelsError for tiles that hold more pixels than ``max_pixels`` allows, and struct.error
    where the header is cut off.
    """
    directory = Directory.first_of(data)
    hidden = hides_its_picture(directory)
    if hidden:
        raise UnsupportedFormatError(f"TIFF: {hidden}, is not decoded")
    layout = Layout.of(directory)
    layout.check_work(max_pixels)
    pieces = Pieces.of(directory, layout, max_pixels)
    if not _is_pillows(directory, layout):
        check_samples(layout)
        return Repaired(
            _header(directory, layout), lambda _: decode_samples(directory, layout, pieces)
        )
    changes = {
        262: (layout.photometric,),
        284: (1 + layout.is_planar,),
        **pieces.fields(0, len(pieces.offsets)),
    }
    changes |= {338: layout.spare} if layout.spare else {}
    image = TiffImageFile(io.BytesIO(directory.rebuilt(_KEPT, changes)), "")
    is_raw = layout.compression == RAW
    if layout.photometric == YCBCR and is_raw and directory.values(530) != (1, 1):
        _use_libtiff(image)
    return image


def _is_pillows(directory: Directory, layout: Layout) -> bool:
    """Tell whether Pillow reads these samples as they are meant."""
    is_usual = (layout.bits, layout.format) == (_WIDTHS.get(layout.compression, 8), UNSIGNED)
    if layout.compression not in BYTES:
        if is_usual and not (layout.is_planar and layout.photometric == YCBCR):
            return True
        kind = f"compression {layout.compression} of these samples of {layout.bits} bits"
        raise UnsupportedFormatError(f"TIFF: {kind} is not decoded")
    if layout.bits == 1 and layout.samples == 1:
        return layout.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    if layout.photometric == PALETTE and max(directory.values(320), default=0) < 256:
        return False
    is_simple = layout.predictor in (1, 2) and layout.fill_order == 1 and not layout.is_planar
    return is_usual and is_simple and (layout.photometric, layout.samples) in _PLAIN


def _use_libtiff(image: TiffImageFile) -> None:
    """Let libtiff make RGB of uncompressed YCbCr, whose colours are stored at a lower resolution.

    Pillow itself reads it as if they were not.
    """
    image._mode = "RGB"
    image.use_load_libtiff = True
    where = (0, 0, *image._tile_size)
    image.tile = [ImageFile._Tile("libtiff", where, 0, ("RGBX", False, image.tag_v2.offset))]


def _header(directory: Directory, layout: Layout) -> Image.Image:
    """Format, size and orientation, without pixels."""
    image = Image.Image()
    image.format = "TIFF"
    image._mode, image._size = "RGB", (layout.width, layout.height)
    xmp = directory.text(_XMP)
    image.info = {"xmp": xmp} if xmp else {}
    turn = directory.first(_ORIENTATION, 0)
    if turn:
        image.getexif()[_ORIENTATION] = turn
    return image
