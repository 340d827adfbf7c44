"""Small lists and reports that would take much memory, listed where there is little."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.spec import InputSpec
from pipeline.sources.inventory import inventory
from pipeline.sources.kept_columns import kept_columns
from tests.support.processes.limited import read_limited

PIECE = b"n" * 2**24


def packed(path: Path, pieces: Iterable[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
    return path


LONG = {
    "l.txt.gz": (b"/a.jpg\n", b"\n/b.jpg\n"),
    "l.jsonl.gz": (b'{"uri": "/a.jpg"}\n{"uri": "', b'"}\n{"uri": "/b.jpg"}\n'),
    "l.csv.gz": (b"uri,n\n/a.jpg,1\n", b"\n/b.jpg,2\n"),
}


@pytest.mark.parametrize(
    "name", ["l.txt.gz", *(pytest.param(n, marks=pytest.mark.slow) for n in LONG if "txt" not in n)]
)
def test_a_line_of_a_gigabyte_is_one_row(tmp_path: Path, name: str) -> None:
    before, after = LONG[name]
    path = packed(tmp_path / name, [before, *[PIECE] * 64, after])
    assert read_limited(path, "listing") == {"rows": 3}


def test_the_row_of_a_long_line_says_so(tmp_path: Path) -> None:
    path = packed(tmp_path / "l.txt.gz", [b"/a.jpg\n", PIECE, b"\n/b.jpg\n"])
    (table,) = inventory(InputSpec(uris=(str(path),)))
    rows = table.to_pylist()
    assert [row["uri"] for row in rows] == ["/a.jpg", f"{path}#2", "/b.jpg"]
    assert rows[1]["refusal"] == "line 2 is longer than 4194304 characters"


@pytest.mark.slow
def test_a_cell_that_never_ends(tmp_path: Path) -> None:
    path = packed(tmp_path / "l.csv.gz", [b'uri\n/a.jpg\n"', *[b"/b.jpg\n" * 10**6] * 20])
    found = None
    try:
        read_limited(path, "listing")
    except AssertionError as error:
        found = str(error)
    assert found is not None
    assert "UsageError" in found
    assert "line " in found
    assert "field larger than field limit" in found


@pytest.mark.slow
def test_names_and_values_of_a_megabyte(tmp_path: Path) -> None:
    """A table of ten thousand would have gigabytes."""
    lines = (json.dumps({"uri": f"/{n}", "a": "x" * 10**6}).encode() + b"\n" for n in range(500))
    path = packed(tmp_path / "l.jsonl.gz", lines)
    assert read_limited(path, "listing", keep=("a",), more_mib=400) == {"rows": 500}


@pytest.mark.slow
def test_columns_without_number(tmp_path: Path) -> None:
    rows = [{f"k{n}-{m}": 1 for m in range(900)} | {"uri": f"/{n}"} for n in range(300)]
    path = packed(tmp_path / "l.jsonl.gz", (json.dumps(row).encode() + b"\n" for row in rows))
    assert read_limited(path, "listing") == {"rows": 300}


@pytest.mark.parametrize("levels", [10, 40, 500, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_nested_json(tmp_path: Path, levels: int, brackets: str) -> None:
    """Kept as text, unless the output can have it; a row of its own where it is absurd."""
    deep = brackets[:-1] * levels + "1" + brackets[-1] * levels
    path = tmp_path / "l.jsonl"
    path.write_text(f'{{"uri": "/a.jpg", "n": {deep}}}\n{{"uri": "/b.jpg"}}\n')
    spec = InputSpec(uris=(str(path),), keep=("*",))
    kept = kept_columns(spec)
    (table,) = inventory(spec, kept=kept)
    names = table["uri"].to_pylist()
    assert names == (["/a.jpg", "/b.jpg"] if levels < 64 else [f"{path}#1", "/b.jpg"])
    if levels == 40:
        assert json.loads(table["_kept"].to_pylist()[0]["n"]) == json.loads(deep)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.select(["uri"] + (["_kept"] if "_kept" in table.column_names else [])), sink
    )
    assert pq.read_table(pa.BufferReader(sink.getvalue())).num_rows == 2


def shared(value: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value]))


@pytest.mark.parametrize("size", [10**6, 20_000_000])
@pytest.mark.slow
def test_a_parquet_list_of_values_that_are_shared(tmp_path: Path, size: int) -> None:
    table = pa.table({"path": [f"/{n}" for n in range(2000)], "n": shared("x" * size, 2000)})
    path = tmp_path / "l.parquet"
    pq.write_table(table, path, store_schema=False, dictionary_pagesize_limit=2**31 - 1)
    assert path.stat().st_size < 30_000_000
    assert read_limited(path, "listing") == {"rows": 2000}
    assert read_limited(path, "listing", keep=("n",)) == {"rows": 2000}


def test_a_manifest_of_a_report_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with open(path, "wb") as file:
        file.write(b'{"files": [')
        file.truncate(3 * 2**30)
    with pytest.raises(AssertionError, match=r"UsageError: .*it has more than \d+ bytes"):
        read_limited(path, "listing")
