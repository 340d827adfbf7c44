"""PNG files of any bit depth and colour type, with any chunks."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    values: npt.NDArray[np.integer],
    depth: int,
    colour: int,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A file whose samples are ``values``, (H, W) or (H, W, samples).

    before, after: chunks between header and pixels, and between pixels and end.
    """
    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        bits = rows[..., None] >> np.arange(depth - 1, -1, -1) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(lines))
    body = chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
