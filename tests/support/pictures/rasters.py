"""Files of simple formats: a header, then the pixels."""

import gzip
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.integer]


def bmp(
    body: bytes,
    size: tuple[int, int],
    bits: int,
    compression: int = 0,
    *,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    header: int = 40,
) -> bytes:
    """size: a negative height puts the first row at the top. masks: behind or within the header."""
    colours = len(palette) // 4
    head = struct.pack(
        "<IiiHHIIiiII", header, *size, 1, bits, compression, len(body), 0, 0, colours, 0
    )
    fields = struct.pack(f"<{len(masks)}I", *masks)
    head += fields.ljust(header - 40, b"\0") + palette
    return (
        b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body
    )


def tga(pixels: bytes, size: tuple[int, int], depth: int, opacity_bits: int) -> bytes:
    """True colour, the first row at the top."""
    return (
        struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, *size, depth, 0x20 | opacity_bits)
        + pixels
    )


def sun(pixels: bytes, size: tuple[int, int], depth: int, kind: int, palette: bytes = b"") -> bytes:
    palette_kind = 1 if palette else 0
    numbers = (0x59A66A95, *size, depth, len(pixels), kind, palette_kind, len(palette))
    return struct.pack(">8I", *numbers) + palette + pixels


def sgi(samples: Samples, *, colours: int = 0) -> bytes:
    """Samples (channels, H, W) of 8 or 16 bits; colours: 0, or the kind of a palette."""
    channels, height, width = samples.shape
    size = samples.itemsize
    head = struct.pack(">HBBHHHH", 474, 0, size, 3, width, height, channels).ljust(104, b"\0")
    return (head + struct.pack(">I", colours)).ljust(512, b"\0") + samples.astype(
        f">u{size}"
    ).tobytes()


def psd(
    channels: Samples, mode: int, *, bits: int = 8, version: int = 1, packing: int = 0,
    resources: bytes = b"", layers: bytes = b"",
) -> bytes:  # fmt: skip
    """Channels (n, H, W) of a document's merged picture."""
    count, height, width = channels.shape
    head = b"8BPS" + struct.pack(">H6xHIIHH", version, count, height, width, bits, mode)
    sections = b"".join(struct.pack(">I", len(part)) + part for part in (b"", resources, layers))
    return (
        head + sections + struct.pack(">H", packing) + channels.astype(f">u{bits // 8}").tobytes()
    )


def fits(values: Samples | npt.NDArray[np.floating], **cards: float) -> bytes:
    """A picture (H, W), whose last row is the top one; cards: of the header, such as BZERO."""
    bits = values.dtype.itemsize * (-8 if values.dtype.kind == "f" else 8)
    axes = {"NAXIS": 2, "NAXIS1": values.shape[1], "NAXIS2": values.shape[0]}
    body = values[::-1].astype(values.dtype.newbyteorder(">")).tobytes()
    return _cards({"SIMPLE": "T", "BITPIX": bits, **axes, **cards}) + _padded(body, b"\0")


def fits_compressed(values: Samples | npt.NDArray[np.floating], bits: int) -> bytes:
    """A picture (H, W) of four bytes each in a compressed table, declared to have ``bits``."""
    first = _cards({"SIMPLE": "T", "BITPIX": 8, "NAXIS": 0})
    table = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 1, "NAXIS2": 1}
    image = {"ZIMAGE": "T", "ZCMPTYPE": "'GZIP_1  '", "ZBITPIX": bits, "ZNAXIS": 2}
    size = {"ZNAXIS1": values.shape[1], "ZNAXIS2": values.shape[0]}
    return first + _cards(table | image | size) + b"\0" + gzip.compress(values[::-1].tobytes())


def _cards(told: dict[str, Any]) -> bytes:
    lines = [f"{key:<8}= {value:>20}".ljust(80) for key, value in told.items()]
    return _padded("".join([*lines, "END".ljust(80)]).encode(), b" ")


def _padded(data: bytes, filler: bytes) -> bytes:
    return data.ljust(-(-len(data) // 2880) * 2880, filler)


def xpm(colours: dict[str, str], rows: list[str]) -> bytes:
    """colours: characters to what follows them, such as ``c red``."""
    length = len(next(iter(colours)))
    strings = [f"{len(rows[0]) // length} {len(rows)} {len(colours)} {length}"]
    strings += [f"{key} {text}" for key, text in colours.items()] + rows
    body = ",\n".join(f'"{text}"' for text in strings)
    return f"/* XPM */\nstatic char *picture[] = {{\n{body}\n}};\n".encode()
