"""JPEG 2000 files: codestreams of any number of bits, and JP2 containers around them."""

import base64
import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# Ramps of 8 x 4 pixels from 0 to white, the other way round in every second component; made by
# OpenJPEG's opj_compress, without its comment. Pillow writes no colours of more than 8 bits.
_WIDE = {
    "RGB 12": (
        r"|4;u>051Rl000080000400000000000000800004000000000000RpF0Sf^E3jqQDQUDA9000320R#j90smY82S8"
        r"wGXmJ0K015yA0001F00IA#zycr$kKf=l2AVyxH!shk%YLtwDc|5U2AVyxH!shk%YLtwDS*NGg3s^|00J--"
        r"hr#Q=3qf|aA4WS28^6K%g3s^|00J--hr#Q=3qf|aA4WS28^8bA"
    ),
    "RGB 16 lossy": (
        r"|4;u>051Rl000080000400000000000000800004000000000000R#J0S^HI4*>!HQUDA9000320R#j90RLP73qp"
        r"t_m(!Qimty~r015yA0002200IA#!~X*a00X0}EaVi3K4WrqSG$CA$j|&pNC(K3C*F~^+!$T3P+rB2`OV+Y{76U!h"
        r"AdbqitPn{HM6%J>iq<&zrYX7CIkEi02Yi4b9}pUpRWuVvCTfCn7i<Wwtv7skf=ZKVBi&jCTA|{7WVJ23qfz1t#d7"
        r"VJl$cx1dqT!khnkaV9*tK^b%lU2!Jri6AM7f9jEgmY-o_}`+xu0"
    ),
    "RGBA 10": (
        r"|4;u>05Sjo000080000400000000000000800004000000000000apE0SN&C2>}5K0RjI~01N;C009931Oxy9|6B"
        r"kEKu}m%VE>Q+3IG5A003$L0soW02!IHW-"
        r">_f?nmw{NFVCXOe!majuwVw7J+e11&!WqIzYovMC<E#>vNtc!qRWGT!S;dA*c26q!3#llwjaUvfzQ|!6^FqKL3Xw"
        r"u!1{pW^92AFk7EoOzgrLg*#"
    ),
    "LA 16 signed": (
        r"|4;u>04x9i000080000400000000000000800004000000000000NHz0gnLz|55-"
        r"900001009I900IA800%&Th=`E?kN^q*00000WB>vGli&D|kO#<>ISJs<R#16xb5>I@Eczec_>hnV7>zjz;Lui3d2"
        r"n-9Q!q0cf586$NdIAg;1!3$T?;{WwjU~y!2bYf|6ze37LR2v|9=b_zgrKLN5hZ**#"
    ),
    "LA 9 lossy": (
        r"|4;u>04x9i000080000400000000000000800004000000000000IaB0SEyB|55-"
        r"900001009I90094701HA;Bwy2C(_do$kN^q*00000Q2+t|lh4d328Jo^j1tjx>T=J_ECbdd?TiwXeCPz<z&=2*eW"
        r"3sqc=Qt&3qY^@4JyDNz&=2*eW3srhyDqR3>jPg29;nB|Je"
    ),
}
WIDE = {name: base64.b85decode(text) for name, text in _WIDE.items()}


def codestream(samples: npt.NDArray[Any], bits: int, *, signed: bool = False) -> bytes:
    """Samples (H, W, n) of up to 8 bits: written as if they had 8, then declared to have fewer.

    signed: declare them to be signed, so that 0 is stored as the lowest number.
    """
    values = samples.astype(np.int64) + 128 - (1 << (bits - 1))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    image = Image.fromarray(values.astype(np.uint8).squeeze(), mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG2000", no_jp2=True, mct=0)
    data = bytearray(buffer.getvalue())
    for component in range(samples.shape[2]):
        data[42 + 3 * component] = bits - 1 | signed << 7
    return bytes(data)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def jp2(stream: bytes, *, space: int | bytes = 16, more: bytes = b"") -> bytes:
    """A JP2 file around a codestream.

    space: the number of a colour space, or an ICC profile. more: further boxes of the header.
    """
    x1, y1 = struct.unpack_from(">II", stream, 8)
    (count,) = struct.unpack_from(">H", stream, 40)
    image = box(b"ihdr", struct.pack(">IIHBBBB", y1, x1, count, stream[42], 7, 0, 0))
    method = b"\2\0\0" + space if isinstance(space, bytes) else struct.pack(">BBBI", 1, 0, 0, space)
    header = box(b"jp2h", image + box(b"colr", method) + more)
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + header + box(b"jp2c", stream)


def channels(*kinds: tuple[int, int, int]) -> bytes:
    """The box that says what channels are for: (channel, kind, which colour)."""
    numbers = [number for kind in kinds for number in kind]
    return box(b"cdef", struct.pack(f">{1 + len(numbers)}H", len(kinds), *numbers))


def palette(columns: Sequence[Sequence[int]], depths: Sequence[int], cmap: bytes) -> bytes:
    """The boxes of a palette: a row for each entry, the bits of each column, and the channels."""
    head = struct.pack(">HB", len(columns), len(depths)) + bytes(depth - 1 for depth in depths)
    rows = b"".join(
        value.to_bytes((depth + 7) // 8, "big")
        for row in columns
        for value, depth in zip(row, depths, strict=True)
    )
    return box(b"pclr", head + rows) + box(b"cmap", cmap)
