"""Hashes and what is looked up by them."""

import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from pipeline.output.ledger import hashes
from pipeline.output.ledger.hashes import HashIndex, Keys, ShardNames, hash_strings
from pipeline.output.ledger.ledger import Ledger
from tests.support.commands import REPOSITORY
from tests.support.inputs.world import SHARD_NAMES, Row, table_of

NAMES = ["", "a", "A", "a ", "ü", "u\u0308", "日本", "a\0b", "x" * 10_000, "s3://b/k#1"]


def test_hashes_do_not_depend_on_chunks_or_neighbours() -> None:
    whole = hash_strings(pa.chunked_array([NAMES]))
    single = hash_strings(pa.chunked_array([[name] for name in NAMES]))
    sliced = hash_strings(pa.chunked_array([["x", *NAMES]]).slice(1))
    np.testing.assert_array_equal(whole, single)
    np.testing.assert_array_equal(whole, sliced)
    assert len(set(whole.tolist())) == len(NAMES)


def test_no_strings_no_hashes() -> None:
    assert hash_strings(pa.chunked_array([], pa.string())).dtype == np.uint64
    assert len(hash_strings(pa.chunked_array([[]], pa.string()))) == 0


def test_nothing_hashes_like_the_empty_string() -> None:
    nothing, empty = hash_strings(pa.chunked_array([[None, ""]]))
    assert nothing == empty


def test_hashes_are_the_same_on_every_worker() -> None:
    """An index that the driver makes is looked up in by tasks on other machines."""
    script = (
        "import pyarrow as pa; from pipeline.output.ledger.hashes import hash_strings; "
        f"print(hash_strings(pa.chunked_array([{NAMES!r}])).tolist())"
    )
    command = [sys.executable, "-c", script]
    other = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300, cwd=REPOSITORY
    )
    assert other.stdout.strip() == str(hash_strings(pa.chunked_array([NAMES])).tolist())


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_index_finds_what_is_there(size: int) -> None:
    draw = random.Random(size)
    keys = [draw.randrange(2**64) for _ in range(size)] + [0, 2**64 - 1][: size % 3]
    index = HashIndex(np.unique(np.array(keys, np.uint64)))
    asked = [*keys, *(draw.randrange(2**64) for _ in range(50)), 0, 2**64 - 1]
    found, at = index.find(np.array(asked, np.uint64))
    assert found.tolist() == [key in set(keys) for key in asked]
    np.testing.assert_array_equal(index.keys[at[found]], np.array(asked, np.uint64)[found])


@pytest.mark.parametrize(
    ("uri", "shard"),
    [
        ("s3://b/a.jpg", None),
        ("s3://b/dir.tar/a.jpg", None),
        ("s3://b/a.tar.jpg", None),
        ("s3://b/a.star", None),
        ("s3://b/x.tar", "s3://b/x.tar"),
        ("s3://b/x.tar#a.jpg", "s3://b/x.tar"),
        ("s3://b/x.tar#d/a b#c.jpg", "s3://b/x.tar"),
        ("s3://b/x.tar#a.jpg#2", "s3://b/x.tar"),
        ("/d/x.tar.gz#a.jpg", "/d/x.tar.gz"),
        ("/d/X.TGZ#a.jpg", "/d/X.TGZ"),
        ("/d/new\nline.tar#a\n.jpg", "/d/new\nline.tar"),
        ("/d#e/x.tar#a.jpg", "/d#e/x.tar"),
        ("/d.tar/x.tar#a.jpg", "/d.tar/x.tar"),
    ],
)
def test_shard_of_a_row(uri: str, shard: str | None) -> None:
    assert SHARD_NAMES.shards_of(pa.chunked_array([[uri]])).to_pylist() == [shard]


@pytest.mark.parametrize(
    ("uri", "shard"),
    [
        ("/d/x.bin", "/d/x.bin"),
        ("/d/x.bin#a.jpg", "/d/x.bin"),
        ("/d/x.bin#d/a#b.jpg#2", "/d/x.bin"),
        ("/d/x.bin#y.tar#b.jpg", "/d/x.bin"),
        ("/d#1/x#2.dat#7", "/d#1/x#2.dat"),
        ("/d/y.bin#a.jpg", None),
        ("/d/x.bin.jpg", None),
        ("/d/x.tar#a.jpg", "/d/x.tar"),
        ("/d/x.zip#a.jpg", "/d/x.zip"),
    ],
)
def test_shards_that_do_not_end_like_one(uri: str, shard: str | None) -> None:
    names = ShardNames((".tar", ".zip"), frozenset({"/d/x.bin", "/d#1/x#2.dat"}))
    assert names.shards_of(pa.chunked_array([[uri]])).to_pylist() == [shard]
    assert names.shards_of(pa.chunked_array([], pa.string())).to_pylist() == []


def keys(uri: str, version: str | None) -> Keys:
    return Keys.of(
        pa.table({"uri": [uri], "source_version": pa.array([version], pa.string())}), SHARD_NAMES
    )


def test_ledger_of_nothing() -> None:
    ledger = Ledger.from_tables([], SHARD_NAMES)
    assert len(ledger) == 0
    matches = ledger.match(keys("a", "A"), are_shards=False)
    assert not matches.known.any()
    assert matches.rows.tolist() == [0]
    assert matches.failures.shape == (1, 0)


def test_an_object_that_shares_its_hash_with_a_row_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It counts as changed, even in the version of the row: it is computed, and not lost."""
    monkeypatch.setattr(hashes, "hash_strings", lambda column: np.full(len(column), 7, np.uint64))
    ledger = Ledger.from_tables([table_of([Row("a", "A")])], SHARD_NAMES)
    for uri, version, is_same in (("a", "A", True), ("a", "B", False), ("b", "A", False)):
        matches = ledger.match(keys(uri, version), are_shards=False)
        assert matches.known.tolist() == [True]
        assert matches.same.tolist() == [is_same]


def test_what_is_named_like_a_member_is_compared_like_others() -> None:
    """A list may name an image ``x.tar#a.jpg``, which is in no shard."""
    uri = "s3://b/x.tar#a.jpg"
    ledger = Ledger.from_tables([table_of([Row(uri, "A")])], SHARD_NAMES)
    assert ledger.match(keys(uri, "A"), are_shards=False).same.all()


def test_rows_without_a_version_are_compared_like_others() -> None:
    ledger = Ledger.from_tables([table_of([Row("a", "")])], SHARD_NAMES)
    matches = [ledger.match(keys("a", version), are_shards=False) for version in (None, "B")]
    assert [found.same.tolist() for found in matches] == [[True], [False]]


def test_a_comparison_changes_nothing() -> None:
    rows = [Row("a", "A"), Row("s.tar#a", "A", shard="s.tar")]
    ledger = Ledger.from_tables([table_of(rows)], SHARD_NAMES)
    for objects, uri in ((ledger.images, "a"), (ledger.shards, "s.tar")):
        before = pickle.dumps(objects)
        assert objects.match(keys(uri, "A")).same.all()
        assert pickle.dumps(objects) == before


@pytest.mark.slow
def test_million_rows_keep_50_bytes_each() -> None:
    """Together with the two marks that a plan keeps beside each."""
    count, size = 1_000_000, 100_000
    tables = (
        table_of([]).from_pydict(
            {
                "uri": [f"s3://bucket/{n:09d}.jpg" for n in range(start, start + size)],
                "source_version": [str(n) for n in range(start, start + size)],
                "status": ["ok"] * size,
                "error_code": pa.nulls(size, pa.string()),
            }
        )
        for start in range(0, count, size)
    )
    ledger = Ledger.from_tables(tables, SHARD_NAMES)
    assert len(ledger) == count
    arrays: list[npt.NDArray[Any]] = [
        ledger.shard_at, ledger.images.index.keys, ledger.images.versions, ledger.images.rows,
        ledger.images.slots,
    ]  # fmt: skip
    assert sum(array.nbytes for array in arrays) <= 48 * count
