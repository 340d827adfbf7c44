"""People downstream read what the public command wrote, without Ray, as docs/output.md and
docs/nightly.md say."""

import csv
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.dataset as ds
import pytest
import s3fs

from tests.support.commands import REPOSITORY, call_main
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.pages.spark import run_with_spark
from tests.support.servers.seaweedfs import Bucket

PAGE = (REPOSITORY / "docs" / "output.md").read_text()
SQL = [
    statement
    for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for statement in block.split(";")
    if statement.strip()
]
(README,) = re.findall(r"```sql\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
(POLARS,) = re.findall(r"```python\n(import polars .*?)```", PAGE, re.DOTALL)
NIGHTLY = (REPOSITORY / "docs" / "nightly.md").read_text()
(NOW_SQL,) = re.findall(r"```sql\n(-- duckdb\n.*?)```", NIGHTLY, re.DOTALL)
(NOW_PYTHON,) = re.findall(r"```python\n(import json\n.*?)```", NIGHTLY, re.DOTALL)
(NOW_SPARK,) = re.findall(r"```python\n(rows = spark\.read.*?)```", NIGHTLY, re.DOTALL)
(LANCE,) = re.findall(r"```python\n(import lance\n.*?)```", PAGE, re.DOTALL)

WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # import ray now fails

import duckdb, pandas, polars, pyarrow.dataset

found = [
    set(pyarrow.dataset.dataset("out/data").to_table(columns=["uri"])["uri"].to_pylist()),
    set(pandas.read_parquet("out/data")["uri"]),
    set(polars.read_parquet("out/data/**/*.parquet")["uri"]),
    {uri for uri, in duckdb.sql("SELECT uri FROM 'out/data/**/*.parquet'").fetchall()},
]
assert all(len(uris) == 10 for uris in found), found
assert all(uris == found[0] for uris in found), found
assert polars.read_parquet("out/data/**/*.parquet").schema["embedding"].shape == (32,)
assert pandas.read_parquet("out/data")["embedding"].dropna().map(len).eq(32).all()
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, ray_local: None) -> Path:
    """Where the reader of that page stands: out/ after two nights, and products.csv."""
    root = tmp_path_factory.mktemp("reader")
    cat, *images = write_images(root / "in", 9)
    cat.rename(root / "in/cat.jpg")
    gone = images.pop().rename(root / "in/gone.jpg")
    (root / "in/bad.jpg").write_bytes(b"no image at all")
    arguments = (root / "in", "--output", root / "out", "--model", checkpoint, "--with-labels")
    options = ("--sink", "lance", "--max-failure-rate", "0.2", "--num-actors", "1")
    for number in (1, 2):
        assert call_main("embed", *arguments, *options) == 0
        if number == 1:  # the second night finds one image changed, as another's double, one gone
            images[0].write_bytes((root / "in/cat.jpg").read_bytes())
            gone.unlink()
    with (root / "products.csv").open("w") as file:
        rows = [(str(path), f"sku {path.stem}") for path in (*images[:3], root / "in/none.jpg")]
        csv.writer(file).writerows([("uri", "sku"), *rows])
    return root


def newest(output: Path) -> dict[str, dict[str, Any]]:
    """Oracle in plain Python: of each image that is there the row of the last run."""
    files = sorted(output.glob("data/run=*"))
    rows = {row["uri"]: row for run in files for row in rows_of_run(run)}
    return {uri: row for uri, row in rows.items() if row["status"] != "vanished"}


def rows_of_run(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset(run).to_table().to_pylist()
    return rows


def test_nobody_needs_ray(directory: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_RAY], cwd=directory, check=True)


def neighbours(output: Path) -> list[str]:
    """The nearest by cosine, computed with NumPy: the cat, its double, then the others."""
    good = {uri: row for uri, row in newest(output).items() if row["status"] == "ok"}
    vectors = np.array([row["embedding"] for row in good.values()])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cat = vectors[[uri.endswith("/cat.jpg") for uri in good]][0]
    return [list(good)[place] for place in np.argsort(-(vectors @ cat))]


def test_the_queries_of_the_page(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    with duckdb.connect() as connection:
        results = [connection.sql(statement) for statement in SQL]
        queries = [found for found in results if found and found.columns != ["Count"]]
        labels, joined, near = [found.fetchall() for found in queries]
        latest = connection.sql("FROM images").fetchall()
    rows = newest(directory / "out")
    assert len(published_rows(directory / "out")) == len(rows) + 3 == 12
    assert sum(count for _, count, _ in labels) == 8
    assert {row[0] for row in latest} == set(rows)
    assert len(latest) == len(rows) == 9
    expected = [rows.get(uri, {}) for uri, *_ in joined]
    assert [(sku, label) for _, sku, _, label, _ in joined] == [
        (f"sku {Path(uri).stem}", row.get("label"))
        for (uri, *_), row in zip(joined, expected, strict=True)
    ]
    assert [sku for _, sku, status, *_ in joined if status is None] == ["sku none"]
    wanted = neighbours(directory / "out")
    assert {uri for uri, *_ in near[:2]} == set(wanted[:2])
    assert [uri for uri, *_ in near[2:]] == wanted[2:]


def test_the_view_beside_the_rows(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # it names the output, wherever its reader stands
    with duckdb.connect() as connection:
        connection.execute((directory / "out/images.sql").read_text())
        found = connection.sql("FROM images ORDER BY uri").to_arrow_table()
        labels = connection.sql(README).fetchall()
    rows = newest(directory / "out")
    corrected = ["corrected_label", "corrected_verdict", "corrected_by"]
    assert found.drop_columns(["run", *corrected]).to_pylist() == [
        rows[uri] for uri in sorted(rows)
    ]
    assert not any(found[name].drop_null() for name in corrected)
    assert dict(labels) == Counter(row["label"] for row in rows.values() if row["label"])


def test_the_same_in_polars(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    names: dict[str, Any] = {}
    exec(POLARS, names)
    rows = newest(directory / "out")
    assert dict(names["images"].select("uri", "label").rows()) == {
        uri: row["label"] for uri, row in rows.items()
    }


def test_the_views_of_the_table_as_it_is_now(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a compaction and after it, which leaves the old runs where they are."""
    shutil.copytree(directory / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    rows = newest(tmp_path / "out")
    for _ in range(2):
        names: dict[str, Any] = {}
        exec(NOW_PYTHON, names)
        with duckdb.connect() as connection:
            connection.execute(NOW_SQL)
            found = connection.sql("SELECT * EXCLUDE (run) FROM images ORDER BY uri")
            assert found.to_arrow_table().to_pylist() == [rows[uri] for uri in sorted(rows)]
        for table in (names["with_polars"].to_dicts(), names["with_pandas"].to_dict("records")):
            assert {row["uri"]: row["sha256"] for row in table if row["status"] == "ok"} == {
                uri: row["sha256"] for uri, row in rows.items() if row["status"] == "ok"
            }
            assert {row["uri"] for row in table} == set(rows)
            assert len(table) == len(rows)
        assert call_main("compact", "out") == 0


@pytest.mark.slow
def test_the_view_of_spark(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory / "out", tmp_path / "out")
    rows = newest(tmp_path / "out")
    for _ in range(2):  # before a compaction and after it
        found = run_with_spark(NOW_PYTHON + NOW_SPARK, "images", tmp_path)
        table = found.drop_columns("run").sort_by("uri").to_pylist()
        assert table == [rows[uri] for uri in sorted(rows)]
        assert call_main("compact", tmp_path / "out") == 0


def test_the_search_of_the_page(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    names: dict[str, Any] = {}
    exec(LANCE, names)
    found = names["near"]["uri"].to_pylist()
    assert len(found) == 8, "all good images, and no failed one"
    assert {Path(uri).name for uri in found[:2]} == {"cat.jpg", "0001.jpg"}
    stored = names["images"].to_table().sort_by("uri").to_pylist()
    rows = newest(directory / "out")
    assert stored == [rows[uri] for uri in sorted(rows)]


def test_the_queries_of_the_page_in_a_bucket(directory: Path, s3_bucket: Bucket) -> None:
    s3_bucket.put_tree(directory / "out/data", "out/data/")
    with duckdb.connect() as connection:
        connection.register_filesystem(s3fs.S3FileSystem())
        connection.execute(SQL[0].replace("'out/", f"'{s3_bucket.uri}/out/"))
        assert len(connection.sql("FROM images").fetchall()) == 9
