"""JPEG: work is bounded by the scans, and no segment that the pixels do not need costs an image."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from cvt.preprocessing.decode import decode_image
from tests.support.pictures.jpeg import baseline, grey_in_scans, segment, with_segments
from tests.support.pictures.outcome import MODES, code_of, mean_colour, pixels

PHOTO = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
).resize((64, 48), Image.Resampling.BICUBIC)
PLAIN = baseline(PHOTO)


def exif_with(tag: int, kind: int, count: int, value: bytes) -> bytes:
    entry = struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
    turn = struct.pack(">HHIHH", 274, 3, 1, 3, 0)
    directory = struct.pack(">H", 3) + turn + entry + struct.pack(">HHIHH", 296, 3, 1, 2, 0)
    return segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + directory + bytes(4))


def test_few_scans_are_decoded() -> None:
    for mode in MODES:
        assert mean_colour(grey_in_scans(512, 63), mode) == [128] * 3


@pytest.mark.parametrize(
    ("side", "scans"), [(4096, 6000), (8192, 40), (64, 1500)], ids=["work", "large", "count"]
)
def test_many_scans_are_refused(side: int, scans: int) -> None:
    data = grey_in_scans(side, scans)
    started = time.process_time()
    assert code_of(data) == "unsupported_format"
    assert time.process_time() - started < 2  # the first takes a minute and a half to decode


def test_the_limit_follows_the_limit_of_pixels() -> None:
    assert code_of(grey_in_scans(512, 40), max_pixels=512 * 512) == "unsupported_format"
    assert code_of(grey_in_scans(512, 20), max_pixels=512 * 512) == "ok"
    assert code_of(grey_in_scans(512, 40), max_pixels=2 * 512 * 512) == "ok"


def test_only_scans_of_the_image_itself_count() -> None:
    """Not what follows it, nor what lies in its segments, nor in an image of a single scan."""
    scans = b"\xff\xda" * 1500
    progressive = grey_in_scans(64, 10)
    assert code_of(progressive + grey_in_scans(64, 1500)) == "ok"
    assert code_of(with_segments(progressive, segment(0xE5, scans))) == "ok"
    assert code_of(progressive[:-2] + segment(0xFE, scans) + b"\xff\xd9") == "ok"
    assert code_of(PLAIN + scans) == "ok"


def test_real_progressive_files_pass() -> None:
    buffer = io.BytesIO()
    PHOTO.save(buffer, "JPEG", quality=95, progressive=True)
    difference = pixels(buffer.getvalue()) - np.asarray(PHOTO)
    assert np.abs(difference).mean() < 3
    assert code_of(buffer.getvalue(), max_pixels=64 * 48) == "ok"


BROKEN = {
    "JFIF without its fields": segment(0xE0, b"JFIF"),
    "Adobe without its fields": segment(0xEE, b"Adobe"),
    "Photoshop, cut off": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04"),
    "ICC profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "MPF without a directory": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08"),
    "resolution as an empty text": exif_with(282, 2, 1, b"\0"),
    "resolution as a text": exif_with(282, 2, 2, b"7\0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_segments_that_the_pixels_do_not_need(name: str) -> None:
    data = with_segments(PLAIN[:2] + PLAIN[20:], BROKEN[name])  # a JFIF header has a resolution
    turned = b"Exif" in BROKEN[name]
    expected = np.asarray(decode_image(PLAIN).rotate(180) if turned else decode_image(PLAIN))
    assert np.array_equal(pixels(data), expected)
    assert code_of(data) == "ok"


def test_a_broken_segment_beside_a_sound_orientation() -> None:
    data = with_segments(PLAIN, BROKEN["Adobe without its fields"], exif_with(270, 2, 2, b"a\0"))
    assert np.array_equal(pixels(data), np.asarray(decode_image(PLAIN).rotate(180)))


def test_ever_more_segments_take_no_more_time_each() -> None:
    """Pillow alone adds their contents up, one by one: minutes for this file."""
    data = with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + bytes(30)) * 300_000)
    started = time.process_time()
    assert np.array_equal(pixels(data), pixels(PLAIN))
    assert time.process_time() - started < 5


def test_errors_keep_their_codes() -> None:
    data = with_segments(PLAIN, BROKEN["Adobe without its fields"])
    assert code_of(data[: len(data) // 2]) == "truncated"
    twelve_bits = bytearray(PLAIN)
    twelve_bits[PLAIN.index(b"\xff\xc0") + 4] = 12
    assert code_of(bytes(twelve_bits)) == "unsupported_format"
    late = bytearray(PLAIN[:-2] + segment(0xDC, b"\0\x30") + PLAIN[-2:])
    at = late.index(b"\xff\xc0") + 5
    late[at : at + 2] = b"\0\0"
    assert code_of(bytes(late)) == "unsupported_format"
    assert code_of(bytes(late).replace(b"\xff\xdc", b"\xff\xfe")) == "corrupt"
