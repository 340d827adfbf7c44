"""Small Parquet files that would take much memory, read where there is little."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.processes.limited import read_limited

BIG = bytes(200_000_000)


def repeated(value: bytes | str, times: int) -> pa.Array:
    """A dictionary of one value that all rows share."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value]))


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    options = {"compression": "zstd", "dictionary_pagesize_limit": 2**31 - 1} | options
    pq.write_table(pa.table(columns), path, store_schema=False, **options)
    assert path.stat().st_size < 2 * 2**20
    return path


@pytest.mark.parametrize("name", ["image", "image.bytes"])
def test_a_dictionary_of_one_large_value(tmp_path: Path, name: str) -> None:
    column = repeated(BIG, 64)
    images = pa.StructArray.from_arrays([column], ["bytes"]) if "." in name else column
    path = write(tmp_path / "a.parquet", {"image": images})
    assert read_limited(path, "parquet") == {"shard_corrupt": 1}


@pytest.mark.slow
def test_a_dictionary_below_the_limit_of_pages(tmp_path: Path) -> None:
    """Each of its rows is as large as what all share."""
    path = write(tmp_path / "a.parquet", {"image": repeated(BIG[:100_000_000], 20)})
    found = read_limited(path, "parquet")
    assert found == {"too_large": 10, "shard_corrupt": 1}, "a GiB out of some kilobytes is enough"


@pytest.mark.slow
def test_a_page_of_one_large_value(tmp_path: Path) -> None:
    columns = {"image": [b"small", BIG, b"small"]}
    path = write(tmp_path / "a.parquet", columns, use_dictionary=False)
    assert read_limited(path, "parquet") == {"shard_corrupt": 1}


@pytest.mark.slow
def test_many_columns_together(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"image": [b"i"]}
    columns |= {f"c{n}": [BIG[:60_000_000]] for n in range(12)}
    path = write(tmp_path / "a.parquet", columns, use_dictionary=False)
    assert read_limited(path, "parquet", keep=("*",)) == {"shard_corrupt": 1}
    assert read_limited(path, "parquet", keep=("c0",)) == {"ok": 1}


def test_lists_that_repeat_a_value(tmp_path: Path) -> None:
    """20 rows of a hundred times the same 20 MB."""
    value = repeated("x" * 20_000_000, 2000)
    offsets = pa.array(range(0, 2001, 100), pa.int32())
    texts = pa.ListArray.from_arrays(offsets, value)
    columns = {"image": [b"i"] * 20, "texts": texts, "n": range(20)}
    path = write(tmp_path / "a.parquet", columns)
    assert read_limited(path, "parquet", keep=("texts", "n")) == {"ok": 20}


@pytest.mark.slow
def test_kept_values_of_images_that_are_read_ahead(tmp_path: Path) -> None:
    columns = {"image": [b""] * 2000, "text": repeated("x" * 1_000_000, 2000)}
    path = write(tmp_path / "a.parquet", columns)
    assert read_limited(path, "parquet", keep=("text",)) == {"ok": 2000}


@pytest.mark.slow
def test_rows_without_number(tmp_path: Path) -> None:
    """50 million rows of nothing in a few kilobytes."""
    path = write(tmp_path / "a.parquet", {"image": pa.nulls(50_000_000, pa.binary())},
                 row_group_size=50_000_000)  # fmt: skip
    assert read_limited(path, "parquet") == {"shard_corrupt": 1}


def test_a_footer_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    size = 2_000_000_000
    with open(path, "wb") as file:
        file.write(b"PAR1")
        file.truncate(size)
        file.seek(size)
        file.write((size - 100).to_bytes(4, "little") + b"PAR1")
    assert read_limited(path, "parquet") == {"shard_corrupt": 1}
    path.unlink()


def test_a_row_group_that_says_it_is_empty_has_a_row(tmp_path: Path) -> None:
    """Without one, the shard would never be done, and no run over it would close."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"i"] * 5}), path)
    data = bytearray(path.read_bytes())
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for at in [at for at in range(start, len(data) - 8) if data[at] == 2 * 5]:  # in zigzag
        data[at] = 0
        path.write_bytes(data)
        data[at] = 2 * 5
        try:
            found = pq.read_metadata(path)
        except (OSError, pa.ArrowException):
            continue
        if found.num_rows == 5 and found.row_group(0).num_rows == 0:
            break
    else:
        raise AssertionError("the footer is of another kind")
    assert read_limited(path, "parquet") == {"shard_empty": 1}
