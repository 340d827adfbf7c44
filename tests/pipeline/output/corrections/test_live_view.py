"""The newest correction beside the model's label, in DuckDB, Polars, pandas and Spark, as
docs/corrections.md says."""

import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pytest

from pipeline.contract.corrections import Correction
from pipeline.output.corrections.collected import add
from pipeline.storage.store import Store
from tests.support.commands import REPOSITORY
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.pages.spark import run_with_spark

PAGE = (REPOSITORY / "docs" / "corrections.md").read_text()
(SQL,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(from pathlib.*?)```", PAGE, re.DOTALL)
(SPARK,) = re.findall(r"```python\n(said = spark.*?)```", PAGE, re.DOTALL)

NOW = datetime(2026, 11, 27, tzinfo=UTC)
URI = "s3://bucket/image00000{}.jpg"
ODD = 'a "good", old\ncat'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Where a reader of that page stands: out/ with four cats, of a directory with odd names."""
    place = tmp_path / "it's here"
    scores = np.tile(np.array([0.9, 0.1], np.float32), (4, 1))
    close_run(Store(str(place / "out")), rows_of(scores, ["cat", "dog"]), ["cat", "dog"])
    monkeypatch.chdir(place)
    return Store(str(place / "out"))


def said(number: int, label: str, when: str = "", **others: Any) -> Correction:
    return Correction(uri=URI.format(number), label=label, when=when, **others)


def correct(store: Store) -> dict[str, tuple[str | None, str]]:
    """Add corrections in an order that is not that of their times; what counts in the end."""
    late, early = "2026-11-26T02:00:00.000Z", "2026-11-26T01:00:00.000Z"
    add(store, [said(0, ODD, late), said(1, "", late, verdict="none")], NOW)
    add(store, [said(0, "cow", early), said(1, "dog", early), said(2, "NA", who="Ann")], NOW)
    add(store, [Correction(uri="s3://bucket/gone.jpg", label="dog")], NOW)
    return {
        URI.format(0): (ODD, "label"),
        URI.format(1): (None, "none"),
        URI.format(2): ("NA", "label"),
        "s3://bucket/gone.jpg": ("dog", "label"),
    }


def beside(images: Iterable[tuple[Any, ...]]) -> dict[str, tuple[str | None, str]]:
    """Rows of uri, corrected label and verdict, where there is a verdict."""
    return {uri: (label or None, verdict) for uri, label, verdict in images if verdict}


def test_the_view_of_duckdb(here: Store) -> None:
    view = here.read_bytes("images.sql").decode()
    query = "SELECT uri, corrected_label, corrected_verdict FROM images ORDER BY uri"
    with duckdb.connect() as connection:
        connection.execute(view)
        assert beside(connection.execute(query).fetchall()) == {}
        expected = correct(here)
        found = connection.execute(query).fetchall()
        changed, counts = [connection.execute(one).fetchall() for one in SQL.split(";")[:2]]
        people = connection.execute("SELECT DISTINCT corrected_by FROM images").fetchall()
    assert len(found) == 4
    assert beside(found) == {uri: one for uri, one in expected.items() if "gone" not in uri}
    assert sorted(changed) == [(URI.format(0), "cat", ODD), (URI.format(2), "cat", "NA")]
    assert dict(counts) == {ODD: 1, "NA": 1, "cat": 2}
    assert {name for (name,) in people} == {None, "Ann"}


@pytest.mark.parametrize("is_corrected", [False, True])
def test_polars_and_pandas(here: Store, *, is_corrected: bool) -> None:
    expected = correct(here) if is_corrected else {}
    names: dict[str, Any] = {}
    exec(PYTHON, names)
    assert beside(names["with_polars"].rows()) == expected
    columns = ["uri", "corrected_label", "corrected_verdict"]
    assert beside(names["with_pandas"][columns].itertuples(index=False)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("is_corrected", [False, True])
def test_spark(here: Store, *, is_corrected: bool) -> None:
    expected = correct(here) if is_corrected else {}
    found = run_with_spark(SPARK, "corrections", Path.cwd()).to_pylist()
    assert beside((row["uri"], *row["corrected"].values()) for row in found) == expected


def test_a_file_with_two_columns_put_there_by_hand(here: Store) -> None:
    here.write_bytes("corrections/mine.csv", f"uri,label\n{URI.format(3)},ox\n".encode())
    with duckdb.connect() as connection:
        connection.execute(here.read_bytes("images.sql").decode())
        query = "SELECT corrected_label, corrected_verdict FROM images WHERE uri LIKE '%3.jpg'"
        assert connection.execute(query).fetchall() == [("ox", "label")]


def test_readers_of_the_rows_do_not_meet_them(here: Store) -> None:
    correct(here)
    files = [name for name in here.list("") if name.endswith(".parquet")]
    assert len(polars.read_parquet("out/data/**/*.parquet")) == 4
    found = duckdb.connect().execute("FROM 'out/data/**/*.parquet'").fetchall()
    assert len(found) == 4
    shutil.rmtree("out/corrections")
    assert [name for name in here.list("") if name.endswith(".parquet")] == files
