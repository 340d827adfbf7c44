"""Small tars that would take much memory, or time without end, read where there is little."""

import bz2
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.inputs.tars import tar_bytes
from tests.support.processes.limited import read_limited

GIB = 2**30
ZEROS = bytes(2**24)
COMMON = [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE]
HEADER_TYPES = [
    *COMMON,
    *(
        pytest.param(type, marks=pytest.mark.slow)
        for type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
    ),
]


def header(name: str, size: int, type: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, type
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(ZEROS)):
        yield ZEROS[: size - start]


def packed(path: Path, pieces: Iterable[bytes]) -> Path:
    pack = zlib.compressobj(1, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(pack.compress(piece))
        file.write(pack.flush())
    return path


@pytest.mark.parametrize("type", HEADER_TYPES)
def test_a_header_of_a_gigabyte(tmp_path: Path, type: bytes) -> None:
    pieces = [tar_bytes({"a.jpg": b"a"}), header("x", GIB, type), *zeros(GIB)]
    path = packed(tmp_path / "a.tar.gz", pieces)
    assert read_limited(path, "webdataset") == {"ok": 1, "shard_corrupt": 1}


def test_a_name_of_megabytes(tmp_path: Path) -> None:
    size = 4_000_000
    name = b"n" * size + bytes(-size % 512)
    path = packed(tmp_path / "a.tar.gz", [header("x", size, tarfile.GNUTYPE_LONGNAME), name,
                                          header("y.jpg", 0), bytes(1024)])  # fmt: skip
    assert read_limited(path, "webdataset") == {"shard_corrupt": 1}


@pytest.mark.slow
def test_headers_of_headers(tmp_path: Path) -> None:
    """Twenty thousand of them in front of one member."""
    pieces = [header("x", 1, tarfile.GNUTYPE_LONGNAME), b"n".ljust(512, b"\0")] * 20_000
    path = packed(tmp_path / "a.tar.gz", [*pieces, header("y.jpg", 0), bytes(1024)])
    assert read_limited(path, "webdataset") == {"shard_empty": 1}


@pytest.mark.slow
def test_members_larger_than_allowed(tmp_path: Path) -> None:
    """Also those that say so without being it."""
    pieces = [header("a.jpg", GIB), *zeros(GIB), header("b.jpg", 2**62), bytes(1024)]
    path = packed(tmp_path / "a.tar.gz", pieces)
    assert read_limited(path, "webdataset") == {"too_large": 2, "shard_truncated": 1}


def test_sparse_files_of_terabytes(tmp_path: Path) -> None:
    records = {"GNU.sparse.major": "0", "GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,1",
               "GNU.sparse.name": "a.jpg"}  # fmt: skip
    info = tarfile.TarInfo("x")
    info.size, info.pax_headers = 1, records
    data = info.tobuf(tarfile.PAX_FORMAT) + b"x".ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(data + tar_bytes({"b.jpg": b"b"}))
    assert read_limited(path, "webdataset") == {"too_large": 1, "ok": 1}


@pytest.mark.slow
def test_a_sparse_file_of_pieces_without_end(tmp_path: Path) -> None:
    listed = ",".join(f"{n * 4},1" for n in range(500_000))
    info = tarfile.TarInfo("x.jpg")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": "9", "GNU.sparse.map": listed}
    path = packed(tmp_path / "a.tar.gz", [info.tobuf(tarfile.PAX_FORMAT), bytes(1024)])
    assert read_limited(path, "webdataset") == {"shard_corrupt": 1}


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=["bz2", "xz"])
@pytest.mark.slow
def test_what_unpacks_out_of_all_proportion(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """30 GB of zeros in some kilobytes; the first GiB is enough."""
    times = 30 * GIB // len(ZEROS)
    path = tmp_path / "a.tar"
    path.write_bytes(pack(tar_bytes({"a.jpg": b"a"})[:1024]) + pack(ZEROS) * times)
    assert read_limited(path, "webdataset") == {"ok": 1, "shard_corrupt": 1}


@pytest.mark.slow
def test_a_dictionary_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.xz"
    # The size of the dictionary is a byte of the header of the block; 37 is 1.5 GiB.
    small = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
    data = bytearray(lzma.compress(tar_bytes(), filters=small))
    at = data.index(bytes([0x21, 0x01])) + 2
    data[at] = 37
    end = 12 + (data[12] + 1) * 4
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    path.write_bytes(data)
    assert read_limited(path, "webdataset") == {"shard_corrupt": 1}


@pytest.mark.slow
def test_members_without_number(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", [header("a.txt", 0) * 10_000] * 20)
    assert read_limited(path, "webdataset") == {"shard_truncated": 1}


@pytest.mark.slow
def test_keeping_columns_takes_linear_time(tmp_path: Path) -> None:
    """Of samples that never end, and of texts that never find their image."""
    images = (header(f"a.{n}.jpg", 0) for n in range(20_000))
    path = packed(tmp_path / "a.tar.gz", [*images, bytes(1024)])
    assert read_limited(path, "webdataset", keep=("json", "txt")) == {"ok": 20_000}
    texts = (header(f"b.{n}/x.txt", 600_000) + bytes(600_064) for n in range(300))
    path = packed(tmp_path / "b.tar.gz", [header("x.jpg", 0), *texts, bytes(1024)])
    assert read_limited(path, "webdataset", keep=("json", "txt")) == {"ok": 1}
