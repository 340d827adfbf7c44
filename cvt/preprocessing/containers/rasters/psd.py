"""Photoshop documents: of which kinds the merged picture is read, and without the rest."""

import io
import struct

from PIL import Image
from PIL.PsdImagePlugin import MODES, PsdImageFile

from cvt.errors import UnsupportedFormatError

_MULTICHANNEL = 7
_HEADER = 26
_PACKED = (0, 1)


def open_psd(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a Photoshop document; layers, resources and profiles are left out.

    Raises UnsupportedFormatError for large documents (PSB), for more than 8 bits, and for channels
    that are no colours.
    """
    version, bits, mode = (int.from_bytes(data[at : at + 2], "big") for at in (4, 22, 24))
    if version == 2:
        raise UnsupportedFormatError("large Photoshop documents (PSB) are not decoded")
    if (
        version == 1
        and len(data) >= _HEADER
        and ((mode, bits) not in MODES or mode == _MULTICHANNEL)
    ):
        raise UnsupportedFormatError(f"PSD: colour mode {mode} of {bits} bits is not decoded")
    place = _HEADER
    sections = []
    for _ in ("palette", "resources", "layers"):
        (size,) = struct.unpack_from(">I", data, place)
        sections.append(data[place : place + 4 + size])
        place += 4 + size
    (packing,) = struct.unpack_from(">H", data, place)
    if packing not in _PACKED:
        raise UnsupportedFormatError(f"PSD: compression {packing} is not decoded")
    return PsdImageFile(io.BytesIO(data[:_HEADER] + sections[0] + bytes(8) + data[place:]), "")
