"""JPEG 2000 files: Pillow decodes the components, and what they mean is settled here.

Pillow scales every component to 8 bits: it rounds white of more than 8 bits up to black, and leaves
white of fewer bits grey.
"""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from cvt.errors import UnsupportedFormatError
from cvt.preprocessing.containers.image import Repaired
from cvt.preprocessing.containers.jpeg2000 import boxes
from cvt.preprocessing.containers.jpeg2000.boxes import Header
from cvt.preprocessing.containers.jpeg2000.codestream import Codestream
from cvt.preprocessing.rgb import of_bits

_Plane = npt.NDArray[np.uint8]
_MOST_BITS = 16
_COLOURS = {boxes.GREY: 1, boxes.RGB: 3, boxes.YCC: 3, boxes.CMYK: 4}


def open_jpeg2000(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a JPEG 2000 file.

    Raises UnsupportedFormatError for components and colour spaces without a known meaning.
    """
    header, start = Header.of(data) if data.startswith(boxes.SIGNATURE) else (Header(), 0)
    stream = Codestream.of(data[start:])
    stream.check_work()
    count, most = len(stream.components), max(part.bits for part in stream.components)
    if count > 4 or most > _MOST_BITS:
        raise UnsupportedFormatError(f"JPEG2000: {count} components of {most} bits are not decoded")
    if not all(part.is_whole for part in stream.components):
        if most != 8 or header.palette:
            raise UnsupportedFormatError(
                "JPEG2000: such colours at a lower resolution are not decoded"
            )
        return Jpeg2KImageFile(io.BytesIO(data), "")  # which it takes for YCbCr, as OpenJPEG does
    roles = _roles(header, count)
    image = Jpeg2KImageFile(io.BytesIO(stream.data), "")
    is_plain = header.palette is None and most == 8 and roles == _roles(Header(), count)
    if is_plain and all(part.bits == 8 for part in stream.components):
        return image
    return Repaired(image, lambda decoded: _picture(decoded, stream, header, roles))


class _Roles(NamedTuple):
    """What the channels are for."""

    space: str
    colours: tuple[int, ...]
    opacity: int | None
    is_premultiplied: bool = False


def _roles(header: Header, components: int) -> _Roles:
    count = len(header.palette.channels) if header.palette else components
    space = header.space
    if space is None or count < _COLOURS[space]:
        space = boxes.GREY if count < 3 else boxes.RGB
    needed = _COLOURS[space]
    told = {place: channel for channel, kind, place in header.kinds if kind == boxes.COLOUR}
    in_order = tuple(told[place] for place in range(1, needed + 1) if place in told)
    colours = in_order if len(in_order) == needed else tuple(range(needed))
    if header.kinds:
        opaque = (boxes.OPACITY, boxes.PREMULTIPLIED)
        alphas = [(channel, kind) for channel, kind, _ in header.kinds if kind in opaque]
    else:
        alphas = [(channel, boxes.OPACITY) for channel in range(needed, count)]
    if len(alphas) > 1 or max([*colours, *(channel for channel, _ in alphas)]) >= count:
        raise UnsupportedFormatError(f"JPEG2000: these {count} channels are not decoded")
    if not alphas:
        return _Roles(space, colours, None)
    return _Roles(space, colours, alphas[0][0], alphas[0][1] == boxes.PREMULTIPLIED)


def _picture(
    decoded: Image.Image, stream: Codestream, header: Header, roles: _Roles
) -> Image.Image:
    channels = _channels(decoded, stream, header)
    bands = [Image.fromarray(channels[index]) for index in roles.colours]
    mode = {boxes.GREY: "L", boxes.RGB: "RGB", boxes.YCC: "YCbCr", boxes.CMYK: "CMYK"}[roles.space]
    image = Image.merge(mode, bands)
    if roles.space in (boxes.YCC, boxes.CMYK):
        image = image.convert("RGB")
    if roles.opacity is None:
        return image
    opacity = channels[roles.opacity]
    if not roles.is_premultiplied:
        image.putalpha(Image.fromarray(opacity))
        return image
    levels = np.asarray(image.convert("RGB"))
    return Image.fromarray(levels + np.minimum(255 - levels, 255 - opacity[..., None]))  # on white


def _channels(decoded: Image.Image, stream: Codestream, header: Header) -> list[_Plane]:
    """The levels of each channel, 0..255."""
    if header.palette is None:
        return _levels(decoded, stream)
    values = [
        np.asarray(band) >> ((16 if decoded.mode == "I;16" else 8) - part.bits)
        for band, part in zip(decoded.split(), stream.components, strict=True)
    ]
    columns = header.palette.columns
    levels = _levels(decoded, stream)
    return [
        levels[component]
        if column is None
        else columns[np.minimum(values[component], len(columns) - 1), column]
        for component, column in header.palette.channels
    ]


def _levels(decoded: Image.Image, stream: Codestream) -> list[_Plane]:
    """The components in 8 bits: white is 255, whatever bits it had."""
    if decoded.mode == "I;16":
        return [of_bits(np.asarray(decoded), 16)]
    planes = [np.asarray(band) for band in decoded.split()]
    parts = list(zip(planes, stream.components, strict=True))
    if any(part.bits > 8 and not plane.all() for plane, part in parts):
        half = Jpeg2KImageFile(io.BytesIO(stream.widened()), "").split()
        planes = [
            _unwrapped(plane, np.asarray(band)) for plane, band in zip(planes, half, strict=True)
        ]
    return [
        of_bits(plane >> (8 - part.bits), part.bits) if part.bits < 8 else plane
        for plane, part in zip(planes, stream.components, strict=True)
    ]


def _unwrapped(plane: _Plane, half: _Plane) -> _Plane:
    """The plane with white where Pillow rounded white up to black.

    half: the same component at half the contrast, which has its darker half below 128.
    """
    return np.where((plane == 0) & (half >= 128), 255, plane).astype(np.uint8)
