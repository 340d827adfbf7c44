"""Kept columns of Parquet files: of any type and any name, in files that disagree; they never cost
an image."""

import io
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import DECODED, KEPT, published, with_kept
from pipeline.contract.spec import InputSpec
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import ReadOptions
from pipeline.sources.inventory import inventory
from pipeline.sources.kept_columns import kept_columns
from tests.support.inputs.fetching import MIB, work


def write(path: Path, **columns: Any) -> None:
    rows = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": [b"i"] * rows, **columns}), path)


def carried(path: Path, *keep: str) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """The kept columns of a directory, and of every image, in order of the files."""
    spec = InputSpec(uris=(str(path),), keep=keep or ("*",))
    kept = kept_columns(spec)
    rows = [row for table in inventory(spec, kept=kept) for row in table.to_pylist()]
    items = list(fetch_items(work(*rows), MIB, ReadOptions.of(spec, kept)))
    assert all(item.data == b"i" for item in items)
    decoded = [{"uri": item.uri, "status": "ok", KEPT: item.kept} for item in items]
    table = published(pa.Table.from_pylist(decoded, with_kept(DECODED, kept)))
    stored = io.BytesIO()
    pq.write_table(table, stored)
    return kept, pq.read_table(stored).select(range(9, table.num_columns)).to_pylist()


VALUES: dict[str, tuple[pa.Array, pa.DataType]] = {
    "dictionary": (pa.array(["a", None]).dictionary_encode(), pa.string()),
    "numbers": (pa.array([7, None]).dictionary_encode(), pa.int64()),
    "string view": (pa.array(["a", None], pa.string_view()), pa.string()),
    "binary view": (pa.array([b"a", None], pa.binary_view()), pa.binary()),
    "large string": (pa.array(["a", None], pa.large_string()), pa.large_string()),
    "large list": (pa.array([[1], None], pa.large_list(pa.int8())), pa.large_list(pa.int8())),
    "list": (pa.array([["a"], []]), pa.list_(pa.string())),
    "fixed list": (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.list_(pa.int8(), 2)),
    "nested": (pa.array([{"a": [{"b": "x"}]}, None]),
               pa.struct([("a", pa.list_(pa.struct([("b", pa.string())])))])),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
            pa.map_(pa.string(), pa.int8())),
    "small booleans": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
                       pa.int8()),
    "tensor": (pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), [2]),
                                              pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2))),
               pa.list_(pa.int8(), 2)),
    "decimal": (pa.array([1, None], pa.decimal128(20, 2)), pa.decimal128(20, 2)),
    "nanoseconds": (pa.array([1_600_000_000_123_456_789, None], pa.timestamp("ns", "UTC")),
                    pa.timestamp("ns", "UTC")),
    "duration": (pa.array([7, None], pa.duration("s")), pa.duration("s")),
    "half": (pa.array([0.5, None], pa.float16()), pa.float16()),
    "nothing": (pa.nulls(2), pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_types(tmp_path: Path, name: str) -> None:
    values, expected = VALUES[name]
    write(tmp_path / "a.parquet", kept=values)
    kept, rows = carried(tmp_path)
    assert kept.field("kept").type == expected
    plain = values.storage if isinstance(values, pa.ExtensionArray) else values
    assert [row["kept"] for row in rows] == plain.to_pylist()


@pytest.mark.parametrize(
    ("first", "second", "expected", "values"),
    [
        (pa.nulls(1), pa.array(["cat"]), pa.string(), [None, "cat"]),
        (pa.array([1]), pa.array(["cat"]), pa.string(), ["1", "cat"]),
        (pa.array([1], pa.int8()), pa.array([300]), pa.int64(), [1, 300]),
        (pa.array([1]), pa.array([0.5]), pa.float64(), [1.0, 0.5]),
        (pa.array([True]), pa.array([7]), pa.string(), ["true", "7"]),
        (pa.array(["a"]), pa.array(["b"]).dictionary_encode(), pa.string(), ["a", "b"]),
        (pa.array(["a"]), pa.array([["b"]]), pa.string(), ["a", '["b"]']),
        (pa.array([date(2026, 1, 2)]), pa.array(["x"]), pa.string(), ['"2026-01-02"', "x"]),
        (pa.array([{"a": 1}]), pa.array([{"b": "x"}]), None,
         [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        (pa.array([{"a": 1}]), pa.array([{"a": "x"}]), pa.string(), ['{"a": 1}', '{"a": "x"}']),
        (pa.array([[]], pa.list_(pa.null())), pa.array([[1]]), pa.list_(pa.int64()), [[], [1]]),
        (pa.array([b"\xff"]), pa.array([1]), pa.string(), ["\\xff", "1"]),
    ],
)  # fmt: skip
def test_files_that_disagree(
    tmp_path: Path, first: pa.Array, second: pa.Array, expected: pa.DataType | None, values: Any
) -> None:
    """Whichever comes first."""
    for names in (("a", "b"), ("b", "a")):
        write(tmp_path / f"{names[0]}.parquet", kept=first)
        write(tmp_path / f"{names[1]}.parquet", kept=second)
        write(tmp_path / "c.parquet", other=[1])
        kept, rows = carried(tmp_path)
        assert expected is None or kept.field("kept").type == expected
        found = [row["kept"] for row in rows[:2]]
        assert (found if names[0] == "a" else found[::-1]) == values
        assert [row["other"] for row in rows] == [None, None, 1]


def test_a_file_beyond_those_that_decide_the_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is null."""
    monkeypatch.setattr("pipeline.sources.kept_columns.SAMPLED_FILES", 1)
    write(tmp_path / "a.parquet", kept=[1])
    write(tmp_path / "b.parquet", kept=["x"])
    write(tmp_path / "c.parquet", kept=[2.0, 2.5])
    kept, rows = carried(tmp_path)
    assert kept.field("kept").type == pa.int64()
    assert [row["kept"] for row in rows] == [1, None, 2, None]


NAMES = [
    "a.b",
    "a",
    ".a",
    "a..b.",
    "[0]",
    "$.x",
    "ü 日本",
    "a/b",
    "a\\b",
    '"',
    "'",
    "\n",
    "image.x",
]


def test_names(tmp_path: Path) -> None:
    """Those that paths and queries are made of; ``a`` is a struct with a field ``b``."""
    columns = {name: [{"b": name}] if name == "a" else [name] for name in NAMES}
    pq.write_table(pa.table({"image": [b"i"], **columns}), tmp_path / "x.parquet")
    _, rows = carried(tmp_path)
    assert rows == [{name: values[0] for name, values in columns.items()}]
    for name in NAMES:
        assert carried(tmp_path, name)[1] == [{name: columns[name][0]}]


def test_names_that_the_output_has_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To SQL, upper and lower case are the same; the directories of runs are a column."""
    taken = ["Label", "URI", "run", "RUN", "embedding", "_x", ""]
    columns = {name: ["mine"] for name in (*taken, "id")}
    pq.write_table(pa.table({"image": [b"i"], **columns}), tmp_path / "x.parquet")
    assert carried(tmp_path)[1] == [{"id": "mine"}]
    assert 'with these names: Label, URI, run, RUN, embedding, _x, ""' in caplog.text
    for name in taken:
        with pytest.raises(UsageError, match="columns that the output itself has"):
            carried(tmp_path, name)


def test_of_columns_with_the_same_name_the_first_counts(tmp_path: Path) -> None:
    arrays = [pa.array([b"i"]), pa.array([1]), pa.array(["x"]), pa.array([b"j"])]
    table = pa.Table.from_arrays(arrays, ["image", "kept", "kept", "image"])
    pq.write_table(table, tmp_path / "x.parquet")
    assert carried(tmp_path)[1] == [{"kept": 1}]


def test_values_that_are_too_large_are_left_out(tmp_path: Path) -> None:
    large = "x" * (3 * MIB)
    write(tmp_path / "a.parquet", a=["small", large], b=[large, "small"], c=[[large], ["small"]])
    expected = [{"a": "small", "b": None, "c": None}, {"a": None, "b": "small", "c": ["small"]}]
    assert carried(tmp_path)[1] == expected


def test_values_that_python_has_not(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", when=pa.array([2**60, 0], pa.timestamp("us")))
    assert [row["when"] is None for row in carried(tmp_path)[1]] == [True, False]
