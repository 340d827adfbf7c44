"""JPEG files with any segments, and progressive ones with any number of scans."""

import io
import struct

from PIL import Image


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG file with more segments, behind its first marker."""
    return data[:2] + b"".join(segments) + data[2:]


def baseline(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def grey_in_scans(side: int, scans: int) -> bytes:
    """A uniformly grey progressive image: one scan of means, then ``scans`` that add nothing.

    side: in pixels, a multiple of 32.
    """
    blocks = (side // 8) ** 2
    data = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    data += segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    data += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")  # the difference 0
    data += segment(0xC4, b"\x10" + bytes([1, 1] + [0] * 14) + b"\xe0\x00")  # 2^14 ends, or one
    data += segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(blocks // 8)
    bits = ""
    while blocks:
        run = min(blocks, (1 << 15) - 1)
        bits += f"0{run - (1 << 14):014b}" if run >= 1 << 14 else "10"
        blocks -= run if run >= 1 << 14 else 1
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    for scan in range(scans):
        band = 1 + scan % 63
        data += segment(0xDA, bytes([1, 1, 0, band, band, 0])) + body
    return data + b"\xff\xd9"
