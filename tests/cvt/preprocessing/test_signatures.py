"""What a file claims to be, where Pillow does not know it."""

import struct
import time

import pytest

from cvt.preprocessing.signatures import unsupported_format
from tests.support.pictures.outcome import code_of
from tests.support.pictures.png import chunk

DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg" width="9"/>'
DRAWINGS = {
    "alone": DRAWING,
    "with a declaration": b'\xef\xbb\xbf<?xml version="1.0"?>\n' + DRAWING,
    "behind a long comment": b"<!-- " + b"licence " * 500 + b"-->\n" + DRAWING,
    "behind several": b"<?a?><!-- b --><?c?>\n<!-- d -->" + DRAWING,
    "with a document type": b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd">' + DRAWING,
    "with entities": b'<!DOCTYPE svg [ <!ENTITY a "b"> <!ENTITY c "d"> ]>\n' + DRAWING,
    "with a prefix": b'<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>',
}
PAGES = {
    "a page with a drawing": b"<!DOCTYPE html><html><body>404" + DRAWING + b"</body></html>",
    "a page in lower case": b"<!doctype html>\n<svg>",
    "a feed": b'<?xml version="1.0"?><rss><svg/></rss>',
    "a comment about drawings": b"<!-- <svg> --><html>",
    "another element": b"<svgs/>",
}
FOREIGN = {
    "PAM": b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(12),
    "PFM in colour": b"PF\n2 2\n-1.0\n" + bytes(48),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40),
    "CRW": b"II\x1a\0\0\0HEAPCCDR" + bytes(40),
    "X3F": b"FOVb" + bytes(40),
    "MRW": b"\0MRM" + bytes(40),
    "Olympus": b"IIRS" + bytes(40),
    "Cineon": b"\x80\x2a\x5f\xd7" + bytes(40),
    "MNG": b"\x8aMNG\r\n\x1a\n" + bytes(40),
    "Amiga": b"FORM\0\0\0\x20ILBMBMHD" + bytes(40),
    "animated cursor": b"RIFF\x20\0\0\0ACONanih" + bytes(40),
    "JBIG2": b"\x97JB2\r\n\x1a\n" + bytes(40),
}


@pytest.mark.parametrize("name", [*DRAWINGS, *FOREIGN])
def test_what_is_not_decoded_is_named(name: str) -> None:
    assert code_of({**DRAWINGS, **FOREIGN}[name]) == "unsupported_format"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_no_images(name: str) -> None:
    assert code_of(PAGES[name]) == "not_an_image"


@pytest.mark.parametrize(
    "text", [b"<!---->" * 1200, b"<?" * 5000, b"<!DOCTYPE svg [" * 600, b" " * 9000, b"<!--" * 3000]
)
def test_looking_for_a_drawing_takes_no_time(text: bytes) -> None:
    started = time.process_time()
    assert unsupported_format(text + b"<html>") is None
    assert time.process_time() - started < 0.1


def test_an_image_without_pixels_is_corrupt() -> None:
    empty = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 0, 8, 0, 0, 0, 0))
    assert (
        code_of(b"\x89PNG\r\n\x1a\n" + empty + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        == "corrupt"
    )
    assert code_of(b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\2\0;") == "corrupt"
