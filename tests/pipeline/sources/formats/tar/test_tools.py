"""Whatever tar tools show has a row: concatenated archives, all headers, sparse files, and every
compression."""

import bz2
import gzip
import lzma
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.contract.spec import InputSpec
from pipeline.sources.formats.registry import shard_names
from tests.support.inputs.listing import rows
from tests.support.inputs.tars import MEMBERS, content, failures, read, shard, tar_bytes

A = {f"a{n}.jpg": bytes([n]) * 700 for n in range(3)}
B = {f"b{n}.jpg": bytes([n]) * 600 for n in range(3)}


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes, "tar.gz": gzip.compress, "tgz": gzip.compress, "tar.bz2": bz2.compress,
    "tbz2": bz2.compress, "tbz": bz2.compress, "tar.xz": lzma.compress, "txz": lzma.compress,
    "tar.zst": zstd, "tzst": zstd,
}  # fmt: skip


class TestConcatenated:
    @pytest.mark.parametrize("blocks", [0, 1, 2, 20, 21])
    def test_archives(self, tmp_path: Path, blocks: int) -> None:
        """However many blocks of zeros are between them."""
        first = tar_bytes(A)
        end = len(first.rstrip(b"\0")) // 512 * 512 + 512
        uri = shard(tmp_path / "x.tar", first[:end] + bytes(512 * blocks) + tar_bytes(B))
        items = read(uri)
        assert content(items, uri) == A | B
        assert not failures(items)

    @pytest.mark.parametrize("ending", COMPRESSIONS)
    def test_compressed_streams(self, tmp_path: Path, ending: str) -> None:
        """Two archives, and one archive in two streams."""
        compress = COMPRESSIONS[ending]
        uri = shard(tmp_path / f"x.{ending}", compress(tar_bytes(A)) + compress(tar_bytes(B)))
        assert content(read(uri), uri) == A | B
        assert rows(tmp_path)[0]["kind"] == "webdataset"
        names = shard_names(InputSpec(uris=("any",)))
        assert names.shards_of(pa.chunked_array([[f"{uri}#a.jpg"]])).to_pylist() == [uri]
        whole = tar_bytes()
        uri = shard(tmp_path / f"x.{ending}", compress(whole[:5000]) + compress(whole[5000:]))
        assert content(read(uri), uri) == MEMBERS
        assert not failures(read(uri))

    @pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
    def test_a_second_one_that_is_cut_is_told(self, tmp_path: Path, ending: str) -> None:
        compress = COMPRESSIONS[ending]
        second = compress(tar_bytes({"b.jpg": os.urandom(5000)}))
        for cut in (20, len(second) // 2):
            uri = shard(tmp_path / f"x.{ending}", compress(tar_bytes(A)) + second[:cut])
            items = read(uri)
            assert content(items, uri) == A
            assert failures(items) == [(uri, "shard_truncated")]

    def test_what_follows_the_end_mark_and_is_no_archive_is_told(self, tmp_path: Path) -> None:
        uri = shard(tmp_path / "x.tar", tar_bytes(A) + b"garbage" * 100)
        items = read(uri)
        assert content(items, uri) == A
        assert failures(items) == [(uri, "shard_corrupt")]


class TestGzip:
    @pytest.mark.parametrize("flags", range(0, 32, 2))
    def test_headers(self, tmp_path: Path, flags: int) -> None:
        """With extra fields, a name, a comment and a checksum of the header (RFC 1952)."""
        head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\x02\xff"
        head += struct.pack("<H", 300) + b"e" * 300 if flags & 4 else b""
        head += b"name \xff.tar\0" if flags & 8 else b""
        head += b"a comment\0" if flags & 16 else b""
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
        packed = head + gzip.compress(tar_bytes())[10:]
        uri = shard(tmp_path / "x.tar.gz", packed)
        assert content(read(uri), uri) == MEMBERS
        assert not failures(read(uri))

    @pytest.mark.parametrize("rest", [bytes(1), bytes(70_000), b"garbage", b"\0\0garbage"])
    @pytest.mark.parametrize("ending", ["tar.gz", "tar.bz2", "tar.xz"])
    def test_padding_and_what_tools_ignore(self, tmp_path: Path, ending: str, rest: bytes) -> None:
        packed = COMPRESSIONS[ending](tar_bytes())
        uri = shard(tmp_path / f"x.{ending}", packed + rest)
        assert content(read(uri), uri) == MEMBERS
        assert not failures(read(uri))
        uri = shard(tmp_path / f"x.{ending}", packed + bytes(99) + packed)
        assert len(content(read(uri), uri)) == 2 * len(MEMBERS)

    @pytest.mark.parametrize("ending", ["tar.gz", "tar.bz2", "tar.xz"])
    def test_a_wrong_checksum_is_told(self, tmp_path: Path, ending: str) -> None:
        packed = bytearray(COMPRESSIONS[ending](tar_bytes()))
        packed[-7] ^= 1
        uri = shard(tmp_path / f"x.{ending}", bytes(packed))
        assert failures(read(uri)) == [(uri, "shard_corrupt")]


def test_zstd_frames_to_be_skipped(tmp_path: Path) -> None:
    skipped = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 9) + b"some text"
    packed = [skipped, zstd(tar_bytes(A)), skipped, skipped, zstd(tar_bytes(B)), skipped]
    uri = shard(tmp_path / "x.tar.zst", b"".join(packed))
    assert content(read(uri), uri) == A | B
    assert not failures(read(uri))


def gnu_tar(tmp_path: Path, *options: str) -> str:
    """What the tool makes of a directory; shown are the files that it unpacks."""
    uri = str(tmp_path / "x.tar")
    subprocess.run(["tar", *options, "-cf", uri, "-C", tmp_path / "in", "."], check=True)
    return uri


FORMATS = ["v7", "oldgnu", "gnu", "ustar", "posix"]


@pytest.mark.parametrize("format", FORMATS)
def test_names_as_the_tool_writes_them(tmp_path: Path, format: str) -> None:
    names = [b"a b.jpg", b"caf\xe9.jpg", "日本.jpg".encode(), b"new\nline.jpg", b"d.x/e.jpg"]
    if format != "v7":
        names.append(b"/".join([b"n" * 40] * 4) + b".jpg")
    if format in ("oldgnu", "gnu", "posix"):
        names.append(b"/".join([b"l" * 200] * 3) + b".jpg")
    for name in names:
        path = os.path.join(os.fsencode(tmp_path), b"in", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
    uri = gnu_tar(tmp_path, f"--format={format}")
    found = content(read(uri), uri)
    assert found == {f"./{os.fsdecode(n).encode('utf-8', 'backslashreplace').decode()}": n
                     for n in names}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=oldgnu"], ["--sparse-version=0.0"], ["--sparse-version=0.1"],
     ["--sparse-version=1.0"]],
    ids=" ".join,
)  # fmt: skip
def test_sparse_files(tmp_path: Path, options: list[str]) -> None:
    """In few pieces and in so many that they need blocks of their own."""
    (tmp_path / "in").mkdir()
    expected = {}
    for pieces in (0, 1, 3, 90):
        with open(tmp_path / "in" / f"{pieces}.jpg", "wb") as file:
            for n in range(pieces):
                file.seek(n * 20_000 + 4096)
                file.write(bytes([n + 1]) * 700)
            file.truncate(pieces * 20_000 + 50_000)
        expected[f"./{pieces}.jpg"] = (tmp_path / "in" / f"{pieces}.jpg").read_bytes()
    (tmp_path / "in" / "plain.jpg").write_bytes(b"plain")
    if "sparse-version" in options[0]:
        options = ["--format=posix", *options]
    uri = gnu_tar(tmp_path, "--sparse", "--hole-detection=raw", *options)
    items = read(uri, max_bytes=3 * 2**20)
    assert content(items, uri) == expected | {"./plain.jpg": b"plain"}
    assert not failures(items)


def test_a_dump_of_a_directory_has_the_names_that_the_tool_shows(tmp_path: Path) -> None:
    """Incremental archives have times where others have the beginning of a name."""
    (tmp_path / "in" / "d").mkdir(parents=True)
    for name in ("a.jpg", "d/b.jpg"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    uri = gnu_tar(tmp_path, f"--listed-incremental={tmp_path}/state")
    assert content(read(uri), uri) == {"./a.jpg": b"a.jpg", "./d/b.jpg": b"d/b.jpg"}


def test_names_that_come_again_a_thousand_times(tmp_path: Path) -> None:
    """Once, each took longer than the one before."""
    members = [("a.jpg", b"")] * 2000 + [("a.jpg#2001", b"x"), ("a.jpg", b"y")]
    uri = shard(tmp_path / "x.tar", tar_bytes(members))
    found = [item.uri.removeprefix(f"{uri}#") for item in read(uri)]
    assert found == ["a.jpg", *(f"a.jpg#{n}" for n in range(2, 2002))]
