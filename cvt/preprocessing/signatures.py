"""What an image file claims to be, by its first bytes, and whether its end is missing."""

import re
import struct

_UNSUPPORTED_PREFIXES = (
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x01\x00\x09\x00\x00\x03", "WMF"),
    (b"8BPB", "large Photoshop document (PSB)"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"gimp xcf", "GIMP XCF"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"II\xbc", "JPEG XR"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"AT&TFORM", "DjVu"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"IIRO", "Olympus raw"),
    (b"IIRS", "Olympus raw"),
    (b"MMOR", "Olympus raw"),
    (b"II\x1a\x00\x00\x00HEAPCCDR", "Canon raw (CRW)"),
    (b"FOVb", "Sigma raw (X3F)"),
    (b"\x00MRM", "Minolta raw (MRW)"),
    (b"P7\n", "PAM"),
    (b"PF\n", "PFM in colour"),
    (b"\x80\x2a\x5f\xd7", "Cineon"),
    (b"id=ImageMagick", "MIFF"),
    (b"LBLSIZE=", "VICAR"),
    (b"farbfeld", "farbfeld"),
    (b"\xab\x01\x01", "VIFF"),
    (b"\xabKTX ", "KTX"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
    (b"\x97JB2\r\n\x1a\n", "JBIG2"),
    (b"IIU\x00", "Panasonic raw"),
    (b"\x89HDF", "HDF5"),
    (b"GRIB", "GRIB"),
    (b"BUFR", "BUFR"),
    (b"\x00\x00\x01\xb3", "MPEG"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OLE compound (FlashPix, MIC, Office)"),
)
_IPTC_RECORDS = tuple(bytes([number]) for number in range(1, 10))

# A drawing, not a page that contains one: before it, only what XML allows before the root.
_SVG = re.compile(
    rb"(?>\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE\s+svg\b[^[>]*(?:\[.*?\])?\s*>)*+<(?:\w+:)?svg[\s/>]",
    re.DOTALL,
)


def unsupported_format(data: bytes) -> str | None:
    """The name of an image's or document's format, if it is one that Pillow does not decode."""
    for prefix, name in _UNSUPPORTED_PREFIXES:
        if data.startswith(prefix):
            return name
    if data[4:12] == b"ftypcrx ":
        return "Canon raw (CR3)"
    if data[:4] + data[8:12] in (b"FORMILBM", b"FORMPBM ", b"RIFFACON"):
        return data[8:12].decode().strip()
    if data[:1] == b"\x1c" and data[1:2] in _IPTC_RECORDS:
        return "IPTC/NAA"
    if data[40:44] == b" EMF":
        return "EMF"
    if data[128:132] == b"DICM":
        return "DICOM"
    head = data[:8192].removeprefix(b"\xef\xbb\xbf")
    return "SVG" if _SVG.match(head) else None


def ends_early(data: bytes) -> bool:
    """Whether a file of a common format lacks the end that its format demands."""
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in data[-1024:]
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-1024:]
    if data.startswith(b"\xff\x4f\xff\x51"):
        return not data.rstrip(b"\x00").endswith(b"\xff\xd9")
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\x00").endswith(b";")
    if data.startswith(b"qoif"):
        return not data.endswith(bytes(7) + b"\x01")
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    if data[4:8] in (b"ftyp", b"jP  ", b"JXL "):
        return _boxes_end_early(data)
    try:
        if data.startswith((b"II*\x00", b"MM\x00*")):
            return _tiff_ends_early(data)
        if data.startswith(b"\x00\x00\x01\x00"):
            return _icons_end_early(data)
    except struct.error:  # the tables that say where the image is are cut off
        return True
    return False


def _boxes_end_early(data: bytes) -> bool:
    """Walk the boxes of an ISO base media file (AVIF, HEIF, JPEG 2000, JPEG XL)."""
    position = 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if len(data) - position >= 8 > size:  # 0: the box reaches to the end of the file
            return False
        position += max(size, 8)
    return position > len(data)


def _tiff_ends_early(data: bytes) -> bool:
    """Compare where the first image's strips or tiles lie with the length of the file."""
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    entries = (
        (*struct.unpack_from(order + "HHII", data, position - 8), position)
        for position in range(directory + 10, directory + 10 + 12 * count, 12)
    )
    values: dict[int, tuple[int, ...]] = {}
    for tag, kind, length, offset, inline in entries:
        if tag in (273, 279, 324, 325) and kind in (3, 4):
            code = f"{order}{length}{'H' if kind == 3 else 'I'}"
            position = inline if struct.calcsize(code) <= 4 else offset
            values[tag] = struct.unpack_from(code, data, position)
    starts = values.get(273, ()) + values.get(324, ())
    sizes = values.get(279, ()) + values.get(325, ())
    return any(start + size > len(data) for start, size in zip(starts, sizes, strict=False))


def _icons_end_early(data: bytes) -> bool:
    (count,) = struct.unpack_from("<H", data, 4)
    spans = (struct.unpack_from("<II", data, 6 + 16 * i + 8) for i in range(count))
    return any(size + start > len(data) for size, start in spans)
