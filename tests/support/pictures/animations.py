"""Animations whose first frame is smaller than their canvas, and icons."""

import io
import struct
from collections.abc import Sequence

from PIL import Image

Box = tuple[int, int, int, int]
RED = (255, 0, 0)


def still(name: str, size: tuple[int, int], colour: tuple[int, ...] = RED) -> bytes:
    """A file of one colour."""
    buffer = io.BytesIO()
    mode = "RGBA" if len(colour) == 4 else "RGB"
    options = {"lossless": True} if name == "WEBP" else {}
    Image.new(mode, size, colour).save(buffer, name, **options)
    return buffer.getvalue()


def gif(
    canvas: tuple[int, int], box: Box, *, transparent: bool = False, background: int = 0
) -> bytes:
    """One red frame. box: where it lies; the palette is red and blue, blue may be transparent."""
    left, top, right, bottom = box
    full = still("GIF", (right - left, bottom - top))
    at = full.index(b",", 13)
    packed = full[at + 10 + (3 * (2 << (full[at + 9] & 7)) if full[at + 9] & 0x80 else 0) :]
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, background, 0)
    palette = bytes([255, 0, 0, 0, 0, 255])
    control = b"!\xf9\x04" + bytes([int(transparent), 0, 0, 1, 0])
    frame = b"," + struct.pack("<HHHHB", left, top, right - left, bottom - top, 0)
    return head + palette + control + frame + packed


def webp(canvas: tuple[int, int], box: Box, *, has_opacity: bool) -> bytes:
    """Two red frames on a green background; the box's left and top are even."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    def three(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(3, "little") for number in numbers)

    left, top, right, bottom = box
    frame = three(left // 2, top // 2, right - left - 1, bottom - top - 1, 100) + b"\0"
    frame += still("WEBP", (right - left, bottom - top))[12:]
    extended = bytes([0x12 if has_opacity else 0x02, 0, 0, 0]) + three(canvas[0] - 1, canvas[1] - 1)
    body = b"WEBP" + chunk(b"VP8X", extended) + chunk(b"ANIM", struct.pack("<IH", 0xFF00FF00, 0))
    body += chunk(b"ANMF", frame) * 2
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bitmap(
    size: tuple[int, int], bits: int, pixels: bytes, mask: bytes, palette: bytes = b""
) -> bytes:
    """An icon's picture: a bitmap without its file header, and a mask behind its pixels."""
    width, height = size
    colours = len(palette) // 4
    head = struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, bits, 0, 0, 0, 0, colours, 0)
    return head + palette + pixels + mask


def ico(
    pictures: Sequence[tuple[tuple[int, int], int, bytes]], *, kind: int = 1, count: int = 0
) -> bytes:
    """An icon (kind 1) or cursor (kind 2): (size as told, bits as told, file) of each picture.

    count: how many the header claims, if not as many as there are.
    """
    head = struct.pack("<HHH", 0, kind, count or len(pictures))
    place = 6 + 16 * len(pictures)
    entries = b""
    for (width, height), bits, file in pictures:
        sides = width % 256, height % 256
        entries += struct.pack("<BBBBHHII", *sides, 0, 0, 1, bits, len(file), place)
        place += len(file)
    return head + entries + b"".join(file for *_, file in pictures)


def icns(blocks: Sequence[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(struct.pack(">4sI", kind, 8 + len(file)) + file for kind, file in blocks)
    return b"icns" + struct.pack(">I", 8 + len(body)) + body
