"""Merging the parts of a run: files of the wished size, sorted and read by everybody."""

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.output.merge
from pipeline.output.merge import merge
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import (
    METADATA,
    SCHEMA,
    commit,
    names,
    open_run,
    result_rows,
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
        assert (tally.files, tally.rows, tally.repeated()) == ([], 0, 0)

    def test_size_follows_the_bytes_when_not_given(
        self, local_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = open_run(local_store, 1000, 500)
        merge(run, METADATA, None)
        assert len(staged(run)) == 1
        stored = sum(local_store.list(f"{run.directory}/parts").values())
        monkeypatch.setattr(pipeline.output.merge, "TARGET_FILE_BYTES", stored // 4)
        merge(run, METADATA, None)
        assert [len(table) for table in staged(run)] == [250] * 4

    @pytest.mark.parametrize(("target", "files"), [(0.7, 1), (0.6, 2), (0.4, 2), (0.3, 3)])
    def test_no_file_is_left_with_the_crumbs(
        self, target: float, files: int, local_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = open_run(local_store, 1000, 500)
        stored = sum(local_store.list(f"{run.directory}/parts").values())
        monkeypatch.setattr(pipeline.output.merge, "TARGET_FILE_BYTES", stored * target)
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
        assert (tally.ok, tally.failed, tally.rows, tally.repeated()) == (9, 1, 10, 0)
        assert tally.failures == {"corrupt": 1}
        assert tally.labels == {"ü": 9}
        (example,) = tally.failure_examples
        assert example == {"uri": names(10)[0], "error_code": "corrupt", "error_message": "<b>"}

    def test_examples_of_failures_are_bounded(self, local_store: Store) -> None:
        run = OpenRun.begin(local_store, OpenRecord())
        commit(run, result_rows(names(200), set(names(200))))
        tally = merge(run, METADATA, 20)
        assert tally.failed == 200
        assert len(tally.failure_examples) == pipeline.output.merge.FAILURES_SHOWN

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
