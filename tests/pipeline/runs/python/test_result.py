"""A result: the newest row of every image that is there, as the run left it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import Result, RunError, UsageError
from pipeline.contract.manifest import Manifest
from pipeline.contract.schema import vanished_rows
from pipeline.contract.spec import PolicySpec
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import CLASSES, softmax, vectors


def result_of(store: Store, manifest: Manifest) -> Result:
    return Result(store, manifest, PolicySpec())


@pytest.fixture
def nights(local_store: Store) -> list[Result]:
    """Five images; one of them changes; another one is gone, and a third is new."""
    first = rows_of(softmax(0, 4), CLASSES, failures=["corrupt"])
    changed = rows_of(softmax(1, 1), CLASSES)
    gone = vanished_rows([first["uri"][1].as_py()], first.schema)
    new = rows_of(softmax(2, 1), CLASSES, prefix="a-new")
    tables = [(first, 5), (changed, 1), (pa.concat_tables([gone, new]), 1)]
    closed = [close_run(local_store, rows, CLASSES, expected=n) for rows, n in tables]
    return [result_of(local_store, manifest) for manifest in closed]


def labels(table: pa.Table) -> dict[str, Any]:
    found = dict(zip(table["uri"].to_pylist(), table["topk_scores"].to_pylist(), strict=True))
    assert len(found) == table.num_rows
    return found


def test_the_newest_row_of_every_image_that_is_there(nights: list[Result]) -> None:
    first, changed, last = (labels(night.table()) for night in nights)
    assert len(first) == len(changed) == len(last) == 5
    changes = [uri for uri in first if first[uri] != changed[uri]]
    assert changes == ["s3://bucket/image000000.jpg"]
    assert set(changed) - set(last) == {"s3://bucket/image000001.jpg"}
    assert set(last) - set(changed) == {"s3://bucket/a-new000000.jpg"}
    assert list(last) == sorted(last)


def test_the_rows_that_a_run_computed_itself(nights: list[Result]) -> None:
    assert [night.table(new_only=True).num_rows for night in nights] == [5, 1, 1]


def test_a_run_that_computed_nothing_has_its_table(nights: list[Result]) -> None:
    nothing = close_run(nights[0].store, nights[0].table().slice(0, 0), CLASSES)
    found = result_of(nights[0].store, nothing)
    assert found.table() == nights[-1].table()
    assert found.table(new_only=True).num_rows == 0
    assert found.table(new_only=True).column_names[:2] == ["uri", "status"]


def test_what_replaces_everything_does_so_for_later_results_alone(nights: list[Result]) -> None:
    rows = rows_of(softmax(3, 2), CLASSES)
    full = result_of(nights[0].store, close_run(nights[0].store, rows, CLASSES, full=True))
    assert full.table().num_rows == 2
    assert nights[-1].table().num_rows == 5


def test_some_columns(nights: list[Result]) -> None:
    assert nights[-1].table(["label", "uri"]).column_names == ["label", "uri"]
    assert nights[-1].table(["score"])["score"] == nights[-1].table()["score"]
    assert nights[-1].table("label").column_names == ["label"]
    with pytest.raises(UsageError, match=r"^there is no column lable; did you mean label\?$"):
        nights[-1].table(["lable"])


def test_columns_that_only_some_runs_have_are_null_elsewhere(local_store: Store) -> None:
    plain = rows_of(softmax(0, 1), CLASSES)
    close_run(local_store, plain.append_column("id", pa.array([7])), CLASSES)
    other = rows_of(softmax(1, 1), CLASSES, prefix="other")
    found = result_of(local_store, close_run(local_store, other, CLASSES)).table()
    assert found["id"].to_pylist() == [7, None]


def test_columns_of_several_types_are_refused(local_store: Store) -> None:
    for name, kind in (("single", pa.float32()), ("half", pa.float16())):
        rows = rows_of(softmax(0, 1), CLASSES, embeddings=vectors(0, 1), prefix=name)
        at = rows.schema.get_field_index("embedding")
        column = rows.column(at).cast(pa.list_(kind, 12))
        closed = close_run(local_store, rows.set_column(at, "embedding", column), CLASSES)
    result = result_of(local_store, closed)
    with pytest.raises(UsageError, match=r"columns of other types.*new_only=True"):
        result.table()
    assert result.table(new_only=True).num_rows == 1
    assert result.table(["label"]).num_rows == 2


def test_a_file_that_is_gone_is_said_in_a_line(nights: list[Result]) -> None:
    for file in Path(nights[0].data_uri).glob("*.parquet"):
        file.unlink()
    with pytest.raises(RunError, match=r"^cannot read .*/out: "):
        nights[-1].table()


def test_other_forms_have_the_same_rows(nights: list[Result]) -> None:
    table = nights[-1].table()
    assert nights[-1].to_arrow() == table
    assert nights[-1].to_pandas()["uri"].tolist() == table["uri"].to_pylist()


def test_it_is_shown_in_a_line_and_in_a_notebook(nights: list[Result]) -> None:
    shown = repr(nights[0])
    assert shown.startswith(f"<Result {nights[0].run_id}: 5 images listed = 4 ok + 1 failed + 0 ")
    assert "\n" not in shown
    assert nights[0].store.uri in shown
    page = nights[0]._repr_html_()
    assert nights[0].report in page
    assert "1 corrupt" in page
