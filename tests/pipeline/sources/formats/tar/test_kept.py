"""json, cls and txt beside the images of a tar: together in any order, in bounded memory."""

import gzip
import io
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pipeline.sources.formats.tar.samples
import pipeline.storage.files
import pipeline.storage.retry
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.kept_columns import kept_columns
from tests.support.inputs.fetching import MIB, code, work
from tests.support.inputs.tars import tar_bytes

Members = list[tuple[str, bytes]]


def read(path: Path, members: Members, *keep: str, cut: int | None = None) -> list[Item]:
    path.write_bytes(tar_bytes(members)[:cut])
    options = ReadOptions(kept=pa.schema([(name, pa.string()) for name in keep]))
    row = {"uri": str(path), "kind": "webdataset"}
    return list(fetch_items(work(row), MIB, options))


def kept(items: list[Item]) -> dict[str, dict[str, str]]:
    return {item.uri.partition("#")[2]: dict(item.kept or {}) for item in items}


SAMPLES: Members = [
    (f"d.x/{n}.{ending}", f"{n} {ending}".encode())
    for n in range(3)
    for ending in ("jpg", "json", "cls", "txt")
]
EXPECTED = {
    f"d.x/{n}.jpg": {"json": f"{n} json", "cls": f"{n} cls", "txt": f"{n} txt"} for n in range(3)
}


@pytest.mark.parametrize(
    "order",
    [
        SAMPLES,
        SAMPLES[::-1],
        sorted(SAMPLES, key=lambda member: member[0].rpartition(".")[2]),
        sorted(SAMPLES, key=lambda member: member[1][::-1]),
    ],
    ids=["image first", "image last", "by extension", "mixed"],
)
def test_members_in_any_order(tmp_path: Path, order: Members) -> None:
    items = read(tmp_path / "x.tar", order, "json", "cls", "txt")
    assert kept(items) == EXPECTED
    assert items[-1].shard_rows == 3


def test_only_what_is_wanted(tmp_path: Path) -> None:
    items = read(tmp_path / "x.tar", SAMPLES, "cls")
    assert kept(items) == {name: {"cls": values["cls"]} for name, values in EXPECTED.items()}


def test_compressed_and_chosen_by_the_input(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar_bytes(SAMPLES)))
    for uri in (tmp_path, tmp_path / "x.tar.gz", tmp_path / "*.gz"):
        spec = InputSpec(uris=(str(uri),), keep=("*",))
        columns = kept_columns(spec)
        assert columns == pa.schema([(name, pa.string()) for name in ("json", "cls", "txt")])
        row = {"uri": str(tmp_path / "x.tar.gz"), "kind": "webdataset"}
        assert kept(list(fetch_items(work(row), MIB, ReadOptions.of(spec, columns)))) == EXPECTED
    with pytest.raises(UsageError, match="it has: json, cls, txt"):
        kept_columns(InputSpec(uris=(str(tmp_path),), keep=("caption",)))


def test_what_is_missing_is_missing(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("b.txt", b"\xff?"), ("c.json", b"alone")]
    items = read(tmp_path / "x.tar", members, "txt", "json")
    assert kept(items) == {"a.jpg": {}, "b.jpg": {"txt": "\\xff?"}}


def test_all_images_of_a_sample_have_its_siblings(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"t"), ("a.mask.png", b"2"), ("a.mask.txt", b"no")]
    items = read(tmp_path / "x.tar", members, "txt")
    assert kept(items) == {"a.jpg": {"txt": "t"}, "a.mask.png": {"txt": "t"}}


def test_a_key_that_comes_again_is_another_sample(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"t"), ("a.jpg", b"2"), ("a.txt", b"u"), ("a.jpg", b"3")]
    items = read(tmp_path / "x.tar", members, "txt")
    assert kept(items) == {"a.jpg": {"txt": "t"}, "a.jpg#2": {"txt": "u"}, "a.jpg#3": {}}


def test_failed_images_have_theirs(tmp_path: Path) -> None:
    members = [("a.jpg", bytes(2 * MIB)), ("a.txt", b"t")]
    (item,) = read(tmp_path / "x.tar", members, "txt")
    assert (code(item), item.kept) == ("too_large", {"txt": "t"})


def test_images_that_wait_at_a_cut_are_rows(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("b.txt", b"t"), ("c.jpg", b"3")]
    items = read(tmp_path / "x.tar", members, "txt", "json", cut=3 * 1024 + 100)
    assert [code(item) for item in items] == [None, None, "shard_truncated"]
    assert kept(items[:2]) == {"a.jpg": {}, "b.jpg": {"txt": "t"}}


def test_waiting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Siblings far behind their image are lost, and memory stays what it is."""
    monkeypatch.setattr(pipeline.sources.formats.tar.samples, "HELD_BYTES", 4 * MIB)
    images = [(f"{n}.jpg", bytes(MIB // 2)) for n in range(40)]
    texts = [(f"{n}.txt", b"t") for n in range(40)]
    (tmp_path / "x.tar").write_bytes(tar_bytes(images + texts))
    options = ReadOptions(kept=pa.schema([("txt", pa.string())]))
    tracemalloc.start()
    found = [
        bool(item.kept)
        for item in fetch_items(
            work({"uri": str(tmp_path / "x.tar"), "kind": "webdataset"}), MIB, options
        )
    ]
    assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    tracemalloc.stop()
    assert len(found) == 40
    assert found == sorted(found), "the last ones were still there"
    assert 4 <= sum(found) <= 8

    held = pipeline.sources.formats.tar.samples.HELD_SAMPLES
    for number, expected in ((held, held), (held + 1, 0)):
        many = [(f"{n}.{ending}", b"") for ending in ("jpg", "txt") for n in range(number)]
        assert sum(map(bool, kept(read(tmp_path / "y.tar", many, "txt")).values())) == expected


def test_images_that_wait_have_rows_when_the_storage_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [(f"{n}.jpg", bytes(2000)) for n in range(10)] + [("0.json", b"{}")]
    whole = tar_bytes(members)

    class Breaking(io.BytesIO):
        """Of which the first half can be read."""

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError("reset")
            return data

    def open_half(*_: Any, start: int = 0, is_streamed: bool) -> Breaking:
        return Breaking(whole[start : len(whole) // 2])

    monkeypatch.setattr(pipeline.storage.files, "_open", open_half)
    monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)
    *items, failed = read(tmp_path / "x.tar", members, "json")
    assert [item.data for item in items] == [bytes(2000)] * len(items)
    assert len(items) >= 4
    assert (failed.uri, code(failed)) == (f"{tmp_path}/x.tar", "storage_error")
    assert failed.shard_rows == len(items) + 1
