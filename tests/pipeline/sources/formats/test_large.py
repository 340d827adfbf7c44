"""Inputs that are large, not made to hurt: they stream, whatever their size."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.inputs.tars import tar_bytes
from tests.support.processes.limited import read_limited

pytestmark = pytest.mark.slow

MINUTES = 60.0


@pytest.mark.timeout(1200)
def test_a_row_group_of_three_gigabytes(tmp_path: Path) -> None:
    """In pages as pyarrow writes them, of up to a thousand images."""
    noise = np.random.default_rng(0).integers(0, 256, 310_000, np.uint8).tobytes()
    hundred = pa.array([noise[number : number + 300_000] for number in range(100)])
    path = tmp_path / "a.parquet"
    table = pa.table({"image": pa.chunked_array([hundred] * 100), "n": range(10_000)})
    options = {"compression": "none", "use_dictionary": False}
    pq.write_table(table, path, row_group_size=10_000, **options)
    assert pq.ParquetFile(path).num_row_groups == 1
    assert path.stat().st_size > 3 * 10**9
    found = read_limited(path, "parquet", keep=("n",), more_mib=1500, timeout=15 * MINUTES)
    assert found == {"ok": 10_000}


@pytest.mark.timeout(1200)
def test_a_tar_of_thirty_gigabytes(tmp_path: Path) -> None:
    """It takes no place on disk: its members, and what follows the end mark, are holes."""
    path = tmp_path / "a.tar"
    hole = tarfile.TarInfo("hole.jpg")
    hole.size = 20 * 2**30
    with open(path, "wb") as file:
        file.write(tar_bytes({"a.jpg": b"first"})[:1024] + hole.tobuf())
        file.seek(hole.size, os.SEEK_CUR)
        file.write(tar_bytes({"b.jpg": b"last"}))
        file.truncate(30 * 2**30)
    found = read_limited(path, "webdataset", timeout=15 * MINUTES)
    assert found == {"ok": 2, "too_large": 1}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.jsonl"])
def test_a_list_of_five_million_lines(tmp_path: Path, name: str) -> None:
    form, head = {
        "l.txt": ("s3://bucket/{}.jpg\n", ""),
        "l.csv": ("s3://bucket/{}.jpg,{}\n", "uri,n\n"),
        "l.jsonl": ('{{"uri": "s3://bucket/{}.jpg", "n": {}}}\n', ""),
    }[name]
    with open(tmp_path / name, "w") as file:
        file.write(head)
        file.writelines(form.format(number, number) for number in range(5_000_000))
    found = read_limited(tmp_path / name, "listing", more_mib=1000, timeout=15 * MINUTES)
    assert found == {"rows": 5_000_000}
