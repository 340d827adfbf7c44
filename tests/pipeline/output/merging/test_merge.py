"""Merging the parts of a run: files of the wished size, sorted and read by everybody."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.schema import vanished_rows
from pipeline.output.merging import file
from pipeline.output.merging import merge as merging
from pipeline.output.merging.merge import merge
from pipeline.output.merging.tally import FAILURES_SHOWN
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import (
    METADATA,
    SCHEMA,
    commit,
    names,
    open_run,
    result_rows,
    spread_run,
    staged,
)


class TestMerge:
    @pytest.mark.parametrize(
        ("count", "part", "size", "expected"),
        [
            (10, 4, 3, [3, 3, 3, 1]),
            (10, 3, 4, [4, 4, 2]),
            (10, 1, 5, [5, 5]),
            (10, 10, 1, [1] * 10),
            (10, 4, 10, [10]),
            (10, 4, 11, [10]),
            (9, 3, 3, [3, 3, 3]),
            (1, 1, 1, [1]),
        ],
    )
    def test_files_are_of_exact_size(
        self, local_store: Store, count: int, part: int, size: int, expected: list[int]
    ) -> None:
        run = open_run(local_store, count, part)
        tally = merge(run, METADATA, size)
        tables = staged(run)
        assert [len(table) for table in tables] == expected
        assert [file.rows for file in tally.files] == expected
        uris = [uri for table in tables for uri in table["uri"].to_pylist()]
        assert sorted(uris) == sorted(names(count))

    def test_no_rows_no_files(self, local_store: Store) -> None:
        tally = merge(OpenRun.begin(local_store, OpenRecord()), METADATA, None)
        assert (tally.files, tally.rows, tally.repeated) == ([], 0, 0)

    def test_size_follows_the_bytes_when_not_given(
        self, local_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = open_run(local_store, 1000, 500)
        merge(run, METADATA, None)
        assert len(staged(run)) == 1
        stored = sum(local_store.list(f"{run.directory}/parts").values())
        monkeypatch.setattr(merging, "TARGET_FILE_BYTES", stored // 4)
        merge(run, METADATA, None)
        assert [len(table) for table in staged(run)] == [250] * 4

    @pytest.mark.parametrize(("target", "files"), [(0.7, 1), (0.6, 2), (0.4, 2), (0.3, 3)])
    def test_no_file_is_left_with_the_crumbs(
        self, target: float, files: int, local_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = open_run(local_store, 1000, 500)
        stored = sum(local_store.list(f"{run.directory}/parts").values())
        monkeypatch.setattr(merging, "TARGET_FILE_BYTES", stored * target)
        merge(run, METADATA, None)
        rows = [len(table) for table in staged(run)]
        assert len(rows) == files
        assert max(rows) - min(rows) < files
        # With the target of 256 MiB, this is the range of 128 to 512 MB.
        assert all(0.5 * target < number / 1000 < 2 * target for number in rows)

    def test_rows_are_sorted_and_files_say_what_made_them(self, local_store: Store) -> None:
        run = open_run(local_store)
        merge(run, METADATA, 6)
        for table in staged(run):
            uris = table["uri"].to_pylist()
            assert uris == sorted(uris)
            assert table.schema.metadata == {k.encode(): v.encode() for k, v in METADATA.items()}

    def test_tally_counts_what_is_written(self, local_store: Store) -> None:
        run = open_run(local_store)
        tally = merge(run, METADATA, 3)
        assert (tally.ok, tally.failed, tally.rows, tally.repeated) == (9, 1, 10, 0)
        assert tally.failures == {"corrupt": 1}
        assert tally.labels == {"ü": 9}
        (example,) = tally.failure_examples
        assert example == {"uri": names(10)[0], "error_code": "corrupt", "error_message": "<b>"}

    def test_examples_of_failures_are_bounded(self, local_store: Store) -> None:
        run = OpenRun.begin(local_store, OpenRecord())
        commit(run, result_rows(names(200), set(names(200))))
        tally = merge(run, METADATA, 20)
        assert tally.failed == 200
        assert len(tally.failure_examples) == FAILURES_SHOWN

    def test_merging_again_starts_over(self, local_store: Store) -> None:
        run = open_run(local_store)
        merge(run, METADATA, 1)
        merge(run, METADATA, 5)
        assert len(staged(run)) == 2

    def test_only_the_parts_of_the_run_are_merged(self, local_store: Store) -> None:
        run = open_run(local_store)
        late = OpenRun(local_store, run.run_id)
        commit(late, result_rows(["/in/late.jpg"]))
        assert merge(run, METADATA, None).rows == 10


class TestOverSeveralFiles:
    """Parts that say where they lie become files that follow each other by uri."""

    @pytest.mark.parametrize("overtaking", [0, 25])
    def test_the_order_is_by_uri_over_all_files(self, local_store: Store, overtaking: int) -> None:
        run = spread_run(local_store, 300, 10, overtaking)
        tally = merge(run, METADATA, 120)
        assert [file.rows for file in tally.files] == [120, 120, 60]
        uris = [uri for table in staged(run) for uri in table["uri"].to_pylist()]
        assert uris == [f"/in/{number:06d}.jpg" for number in range(300)]

    def test_each_file_for_itself_if_all_parts_overlap(self, local_store: Store) -> None:
        run = spread_run(local_store, 300, 10, 10_000)
        merge(run, METADATA, 120)
        files = [table["uri"].to_pylist() for table in staged(run)]
        assert [len(uris) for uris in files] == [120, 120, 60]
        assert all(uris == sorted(uris) for uris in files)
        assert min(files[1]) < max(files[0])

    @pytest.mark.parametrize("overtaking", [0, 25, 10_000])
    @pytest.mark.parametrize("window_rows", [1, 7, 64, 10_000])
    def test_in_whatever_memory_the_rows_are_those_of_the_parts(
        self,
        local_store: Store,
        overtaking: int,
        window_rows: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run = spread_run(local_store, 300, 10, overtaking)
        monkeypatch.setattr(file, "WINDOW_BYTES", window_rows * 1000)
        monkeypatch.setattr(file, "MOST_GROUP_BYTES", window_rows * 1000)
        monkeypatch.setattr(file, "_bytes_of_a_row", lambda *_: 1000)
        monkeypatch.setattr(file, "ROW_GROUP_ROWS", 20)
        tally = merge(run, METADATA, 120)
        parts = [local_store.path(part.name) for part in run.parts]
        rows = duckdb.read_parquet(parts).order("uri").to_arrow_table()
        found = pa.concat_tables(staged(run)).sort_by("uri").replace_schema_metadata(None)
        assert found.equals(rows.cast(found.schema))
        assert (tally.ok, tally.failures, tally.repeated) == (270, {"corrupt": 30}, 0)
        names = local_store.list(f"{run.directory}/publish/data")
        groups = [pq.ParquetFile(local_store.path(name)).metadata for name in names]
        sizes = [one.row_group(n).num_rows for one in groups for n in range(one.num_row_groups)]
        assert max(sizes) == min(window_rows, 20)

    def test_vanished_images_are_sorted_in(self, local_store: Store) -> None:
        run = spread_run(local_store, 300, 10, 0)
        gone = [f"/in/{number:06d}.gone" for number in (299, 7, 120, 119, 0)]
        tally = merge(run, METADATA, 102, vanished=vanished_rows(gone, SCHEMA))
        uris = [uri for table in staged(run) for uri in table["uri"].to_pylist()]
        assert [file.rows for file in tally.files] == [102, 102, 101]
        assert uris == sorted(uris)
        assert set(gone) < set(uris)
        assert tally.rows == 300

    @pytest.mark.parametrize("overtaking", [0, 10_000])
    @pytest.mark.parametrize("ranges", [1, 40])
    def test_a_row_in_two_files_is_found(
        self, local_store: Store, overtaking: int, ranges: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = spread_run(local_store, 300, 10, overtaking)
        monkeypatch.setattr(merging, "ROWS_OF_A_RANGE", math.ceil(304 / ranges))
        for number in (1, 170, 171, 299):
            commit(run, result_rows([f"/in/{number:06d}.jpg"]))
        tally = merge(run, METADATA, 100)
        assert (tally.rows, tally.repeated) == (304, 4)

    def test_the_watch_sees_every_row_once(self, local_store: Store) -> None:
        seen = Names()
        merge(spread_run(local_store, 300, 10, 25), METADATA, 120, watch=seen)
        assert seen.names == [f"/in/{number:06d}.jpg" for number in range(300)]


@dataclass
class Names:
    """A watch that notes the rows."""

    names: list[str] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        self.names += table["uri"].to_pylist()

    def include(self, other: "Names") -> None:
        self.names += other.names


@pytest.fixture(scope="module")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(str(tmp_path_factory.mktemp("published")))
    run = open_run(store)
    merge(run, METADATA, None)
    (file,) = run.store.list(f"{run.directory}/publish/data")
    return Path(store.path(file))


class TestReaders:
    """Files are read by everybody, without Ray and without extension types."""

    def test_arrow(self, published_file: Path) -> None:
        schema = pq.read_schema(published_file)
        assert schema.remove_metadata() == SCHEMA
        assert not any(isinstance(field.type, pa.BaseExtensionType) for field in schema)
        assert pq.ParquetFile(published_file).metadata.row_group(0).sorting_columns == (
            pq.SortingColumn(0),
        )

    def test_columns_are_encoded_for_scans(self, published_file: Path) -> None:
        group = pq.ParquetFile(published_file).metadata.row_group(0)
        columns = {
            group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)
        }
        with_dictionary = {
            name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings
        }
        assert with_dictionary == {
            *("status", "error_code", "error_message", "width", "height", "label_id", "label"),
            *("topk_ids.list.element", "topk_labels.list.element", "labels.list.element"),
        }
        plain = {name for name, column in columns.items() if column.compression != "ZSTD"}
        assert plain == {"embedding.list.element"}

    def test_pandas(self, published_file: Path) -> None:
        frame = pd.read_parquet(published_file).set_index("uri")
        assert frame["status"].value_counts().to_dict() == {"ok": 9, "failed": 1}
        good = frame.loc["/in/0001#%.jpg"]
        assert list(good["topk_labels"]) == ["ü", "cat"]
        assert good["embedding"].tolist() == [1, 2, 3, 4]

    def test_polars(self, published_file: Path) -> None:
        frame = pl.read_parquet(published_file)
        types = dict(zip(frame.columns, frame.dtypes, strict=True))
        assert types["uri"] == types["label"] == pl.String
        assert types["width"] == types["label_id"] == pl.Int32
        assert types["score"] == pl.Float32
        assert types["topk_scores"] == pl.List(pl.Float32)
        assert types["embedding"].base_type() is pl.Array
        good = frame.filter(pl.col("status") == "ok")
        assert good["embedding"].to_list() == [[1, 2, 3, 4]] * 9

    def test_duckdb(self, published_file: Path) -> None:
        query = f"""
            select count(*), sum(embedding[4]), sum(topk_scores[1]), max(len(topk_ids)),
                   count(label) filter (status = 'failed')
            from '{published_file}'
        """
        with duckdb.connect() as connection:
            assert connection.execute(query).fetchone() == (10, 36, 4.5, 2, 0)
            types = connection.execute(f"describe from '{published_file}'").fetchall()
        described = {name: kind for name, kind, *_ in types}
        assert described["embedding"].startswith("FLOAT[")
        assert described["labels"] == "VARCHAR[]"
