"""Broken tars: every member before the damage, and one failed item for what it hides."""

import bz2
import gzip
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.inputs.fetching import code
from tests.support.inputs.tars import MEMBERS, content, failures, read, shard, tar_bytes


class TestBroken:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            tar_bytes({}),
            bytes(1024),
            tar_bytes({"a.txt": b"text"}),
            gzip.compress(tar_bytes({})),
        ],
        ids=["no bytes", "no members", "only the end", "no image", "compressed, no members"],
    )
    def test_without_images(self, tmp_path: Path, data: bytes) -> None:
        uri = shard(tmp_path / "x.tar", data)
        (item,) = read(uri)
        assert item.uri == uri
        assert code(item) in ("shard_empty", "shard_truncated")
        assert item.size_bytes == 7

    @pytest.mark.parametrize(
        "data",
        [
            b"not a tar at all, but some text of more than a few bytes" * 100,
            random.Random(0).randbytes(5000),
            b"\x1f\x8b" + bytes(100),
            b"\xff\xd8\xff\xe0" + bytes(2000),
            b"x",
            gzip.compress(b"not a tar" * 1000),
            b"BZh9" + bytes(600),
            b"\xfd7zXZ\x00" + bytes(600),
            b"\x28\xb5\x2f\xfd" + bytes(600),
        ],
        ids=["text", "noise", "gz head", "jpeg", "one byte", "gz of text", "bz2", "xz", "zstd"],
    )
    def test_no_tar_at_all(self, tmp_path: Path, data: bytes) -> None:
        uri = shard(tmp_path / "x.tar", data)
        items = read(uri)
        assert [uri for uri, _ in failures(items)] == [uri]
        assert code(items[0]) in ("shard_corrupt", "shard_truncated")

    def test_gone(self, tmp_path: Path) -> None:
        items = read(str(tmp_path / "x.tar"))
        assert failures(items) == [(str(tmp_path / "x.tar"), "not_found")]

    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
    def test_cut_anywhere(self, tmp_path: Path, format: int) -> None:
        """The members before the cut are whole, and one row says that there were more."""
        members = {name if format == tarfile.USTAR_FORMAT else f"ü{name}": data
                   for name, data in MEMBERS.items()}  # fmt: skip
        whole = tar_bytes(members, format)
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
        cuts = {*range(1, end, 97), *range(512, end + 1, 512), *range(511, end, 512)}
        for cut in sorted(cuts):
            uri = shard(tmp_path / "x.tar", whole[:cut])
            items = read(uri)
            found = content(items, uri)
            assert found == dict(list(members.items())[: len(found)]), cut
            assert failures(items) == [(uri, "shard_truncated")], cut
            assert len(items) == len(found) + 1
        whole_members = content(read(shard(tmp_path / "x.tar", whole)), str(tmp_path / "x.tar"))
        assert whole_members == members

    def test_cut_in_the_padding_behind_the_end_harms_nothing(self, tmp_path: Path) -> None:
        whole = tar_bytes()
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
        for cut in (end + 512, end + 1024, end + 1500):
            uri = shard(tmp_path / "x.tar", whole[:cut])
            assert content(read(uri), uri) == MEMBERS
            assert not failures(read(uri))

    def test_compressed_and_cut_anywhere(self, tmp_path: Path) -> None:
        random_members = {f"{n}.jpg": random.Random(n).randbytes(3000) for n in range(8)}
        whole = gzip.compress(tar_bytes(random_members))
        for cut in range(1, len(whole) - 60, 911):
            uri = shard(tmp_path / "x.tar.gz", whole[:cut])
            items = read(uri)
            found = content(items, uri)
            assert found == dict(list(random_members.items())[: len(found)]), cut
            assert failures(items) == [(uri, "shard_truncated")], cut

    def test_damaged_header_in_the_middle_is_told(self, tmp_path: Path) -> None:
        """Python's tarfile takes it for the end of the archive and says nothing."""
        data = bytearray(tar_bytes({f"{n}.jpg": b"x" for n in range(6)}))
        data[3 * 1024 + 10] ^= 0xFF
        uri = shard(tmp_path / "x.tar", bytes(data))
        items = read(uri)
        assert list(content(items, uri)) == ["0.jpg", "1.jpg", "2.jpg"]
        assert failures(items) == [(uri, "shard_corrupt")]

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["", "gz", "bz2"])
    def test_noise_anywhere_never_raises(
        self, tmp_path: Path, pack: Callable[[bytes], bytes], seed: int
    ) -> None:
        draw = random.Random(seed)
        good = pack(tar_bytes({f"ü{n}": d for n, d in MEMBERS.items()}, tarfile.PAX_FORMAT))
        for _ in range(60):
            data = bytearray(good)
            for _ in range(draw.choice([1, 3, 30])):
                data[draw.randrange(len(data))] = draw.randrange(256)
            uri = shard(tmp_path / "x.tar", bytes(data))
            assert len(failures(read(uri))) <= 2
