"""TIFF files whose first image is not their picture: camera raws, and thumbnails in front."""

from cvt.preprocessing.containers.tiff.directory import Directory

_SENSOR = frozenset({32803, 34892})
_MAX_DIRECTORIES = 8


def hides_its_picture(directory: Directory) -> str | None:
    """Say what the file is if its first image is a thumbnail of, or a preview to, another."""
    data = directory.data
    if data[8:10] == b"CR" or data[8:12] in (b"IIII", b"MMMM") or 50706 in directory.entries:
        return "a camera raw, whose first image is a preview"
    if directory.first(254, 0) & 1 or directory.first(255, 1) == 2:
        return "a file whose first image says that it is a thumbnail of another"
    area = directory.first(256, 0) * directory.first(257, 0)
    for other, is_below in directory.others(_MAX_DIRECTORIES):
        if other.first(262, 0) in _SENSOR:
            return "a camera raw, whose first image is a preview"
        is_whole = is_below and not other.first(254, 0) & 1
        if is_whole and other.first(256, 0) * other.first(257, 0) > area:
            return "a file whose first image is a thumbnail of one below it"
    return None
