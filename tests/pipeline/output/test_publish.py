"""Closing a run: balanced books, sound files, and a publication that may break off anywhere."""

import os
import random
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.output.merge
from pipeline.contract.errors import RunError
from pipeline.contract.schema import result_schema
from pipeline.output.history import History
from pipeline.output.ledger import Ledger
from pipeline.output.merge import Tally, merge
from pipeline.output.open_run import Deferred, OpenRun, Part, PartFooter
from pipeline.output.publish import close, is_closed, publish
from pipeline.plan.diff import Plan
from pipeline.runs.closing import balance
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import listing_of

SCHEMA = result_schema(labels=True, thresholds=True, embedding=pa.list_(pa.float16(), 4))
METADATA = {"cvt.run_id": "r", "cvt.model": "m ü", "cvt.fingerprint": "f"}
SPEC = {"policy": {"full": False}}


def result_rows(names: list[str], failed: Set[str] = frozenset()) -> pa.Table:
    rows = []
    for name in names:
        row: dict[str, Any] = {"uri": name, "source_version": "A", "size_bytes": 10}
        if name in failed:
            row |= {"status": "failed", "error_code": "corrupt", "error_message": "<b>"}
        else:
            row |= {
                "status": "ok", "width": 3, "height": 4, "sha256": "0" * 64,
                "label_id": 1, "label": "ü", "score": 0.5, "topk_ids": [1, 0],
                "topk_labels": ["ü", "cat"], "topk_scores": [0.5, 0.25], "labels": [],
                "embedding": [1, 2, 3, 4],
            }  # fmt: skip
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def commit(run: OpenRun, table: pa.Table, footer: PartFooter | None = None) -> None:
    name = run.part_name(len(run.parts))
    footer = footer or PartFooter()
    write_table(run.store, name, footer.attach(table))
    run.parts.append(Part(name, len(table), footer))


def names(count: int) -> list[str]:
    """Absolute, unsorted."""
    found = [f"/in/{n:04d}#%.jpg" for n in range(count)]
    random.Random(0).shuffle(found)
    return found


def open_run(store: Store, count: int = 10, rows_per_part: int = 4) -> OpenRun:
    run = OpenRun.begin(store, {"full": False})
    uris = names(count)
    for start in range(0, count, rows_per_part):
        commit(run, result_rows(uris[start : start + rows_per_part], {uris[0]}))
    return run


def manifest_of(run: OpenRun, tally: Tally) -> dict[str, Any]:
    return {
        "run_id": run.run_id, "files": tally.files, "counts": {"listed": 1},
        "identity": {}, "spec": SPEC,
    }  # fmt: skip


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
        assert [file["rows"] for file in tally.files] == expected
        uris = [uri for table in tables for uri in table["uri"].to_pylist()]
        assert sorted(uris) == sorted(names(count))

    def test_no_rows_no_files(self, local_store: Store) -> None:
        tally = merge(OpenRun.begin(local_store, {}), METADATA, None)
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
        run = OpenRun.begin(local_store, {})
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
        late = OpenRun(local_store, run.run_id, {})
        commit(late, result_rows(["/in/late.jpg"]))
        assert merge(run, METADATA, None).rows == 10


def staged(run: OpenRun) -> list[pa.Table]:
    files = run.store.list(f"{run.directory}/publish/data")
    return [pq.ParquetFile(run.store.path(name)).read() for name in files]


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


class TestBalance:
    def books(self, run: OpenRun, **listing: str) -> dict[str, int]:
        empty = OpenRun(run.store, "none", {})
        objects = dict.fromkeys(names(10), "A") | {
            name.replace("_", "."): v for name, v in listing.items()
        }
        plan = Plan(Ledger.from_tables([]), empty)
        plan.survey(listing_of(objects))
        return balance(plan, run, merge(run, METADATA, 4), Deferred())

    def test_balanced(self, local_store: Store) -> None:
        assert self.books(open_run(local_store)) == {
            "listed": 10, "ok": 9, "failed": 1, "skipped": 0,
        }  # fmt: skip

    def test_missing_row(self, local_store: Store) -> None:
        with pytest.raises(RunError, match=r"11 rows expected, 10 found.*start the same command"):
            self.books(open_run(local_store), a_jpg="A")

    def test_repeated_row(self, local_store: Store) -> None:
        run = open_run(local_store)
        commit(run, result_rows(names(1)))
        with pytest.raises(RunError, match="10 rows expected, 11 found, 1 of them repeated"):
            self.books(run)

    def test_repeated_row_in_the_place_of_a_missing_one(self, local_store: Store) -> None:
        run = open_run(local_store)
        commit(run, result_rows(names(1)))
        with pytest.raises(RunError, match="11 rows expected, 11 found, 1 of them repeated"):
            self.books(run, a_jpg="A")

    def test_unclosed_shard(self, local_store: Store) -> None:
        run = open_run(local_store)
        commit(run, result_rows(["a.tar#1.jpg"]))
        with pytest.raises(RunError, match=r"a\.tar.*start the same command again"):
            self.books(run, a_tar="A")

    @pytest.mark.parametrize("members", [2, 3, 4])
    def test_closed_shard(self, local_store: Store, members: int) -> None:
        run = open_run(local_store)
        rows = result_rows([f"a.tar#{n}.jpg" for n in range(3)])
        commit(run, rows, PartFooter({"a.tar": members}))
        if members == 3:
            assert self.books(run, a_tar="A")["listed"] == 13
            return
        with pytest.raises(RunError, match="do not balance"):
            self.books(run, a_tar="A")

    def test_run_stays_open(self, local_store: Store) -> None:
        run = open_run(local_store)
        with pytest.raises(RunError):
            self.books(run, a_jpg="A")
        again = OpenRun.find(local_store)
        assert again is not None
        assert not is_closed(again)
        assert local_store.list("data") == local_store.list("runs") == {}


# --- publication, broken off at every step ---


class KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch, store: Store) -> Iterator[list[str]]:
    """Every change of the storage is a step; the one after ``steps`` of them never happens."""
    done: list[str] = []

    def guard(owner: object, name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if len(done) == steps:
                raise KilledError
            done.append(f"{name} {args[0]}")
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        if store.is_local:
            for name in ("replace", "unlink", "rename", "rmdir"):
                patch.setattr(os, name, guard(os, name))
        else:
            for name in ("copy", "rm_file", "pipe_file"):
                patch.setattr(store.fs, name, guard(store.fs, name))
        yield done


def finished_tree(store: Store, run_id: str) -> dict[str, bytes]:
    """The files of the output, the run's name taken out."""
    return {
        name.replace(run_id, "ID"): store.read_bytes(name).replace(run_id.encode(), b"ID")
        for name in store.list("")
    }


def resume(store: Store) -> None:
    """What the next start of a command does."""
    run = OpenRun.find(store)
    if run is not None:
        assert is_closed(run)
        publish(run)


def closed_run(store: Store) -> tuple[OpenRun, dict[str, Any]]:
    """Three parts and three files; fewer where every step takes a request."""
    run = open_run(store, 10 if store.is_local else 5)
    return run, manifest_of(run, merge(run, METADATA, 4))


def test_publication_may_break_off_after_any_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store(f"{store.uri}/whole")
    run, manifest = closed_run(whole)
    with killed_after(10**6, monkeypatch, whole) as steps:
        close(run, manifest, "<html>")
    expected = finished_tree(whole, run.run_id)
    assert sorted(expected) == [
        *(f"data/run=ID/part-0000{n}.parquet" for n in range(3 if store.is_local else 2)),
        "latest.json", "runs/ID/manifest.json", "runs/ID/report.html",
    ]  # fmt: skip
    written = [step for step in steps if "latest.json" in step]
    assert steps.index(written[0]) > max(
        n for n, step in enumerate(steps) if "/runs/" in step or "/data/run=" in step
    )

    for broken_after in range(len(steps)):
        part = Store(f"{store.uri}/{broken_after}")
        run, manifest = closed_run(part)
        with (
            killed_after(broken_after, monkeypatch, part),
            pytest.raises(KilledError),
        ):
            close(run, manifest, "<html>")
        check_readable(part, run, steps=broken_after)
        found = OpenRun.find(part)
        if found is not None and not is_closed(found):
            close(found, manifest_of(found, merge(found, METADATA, 4)), "<html>")
        resume(part)
        resume(part)
        OpenRun.begin(part, {}).discard()  # the next run, which cleans up what is left
        assert finished_tree(part, run.run_id) == expected, broken_after


def check_readable(store: Store, run: OpenRun, steps: int) -> None:
    """What a reader may see of a publication that broke off: whole files of closed runs only."""
    visible = [name for name in store.list("data") if not name.endswith(".parquet")]
    assert not visible, steps
    if store.exists("latest.json"):
        latest = store.read_json("latest.json")
        manifest = store.read_json(latest["manifest"])
        assert {file["name"] for file in manifest["files"]} == set(store.list("data"))
        assert History.load(store).runs[0].run_id == run.run_id


def test_publishing_twice_changes_nothing(store: Store) -> None:
    run, manifest = closed_run(store)
    close(run, manifest, "<html>")
    before = finished_tree(store, run.run_id)
    assert OpenRun.find(store) is None
    following = OpenRun.begin(store, {})
    close(following, manifest_of(following, merge(following, METADATA, None)), "<html>")
    after = finished_tree(store, run.run_id)
    assert {name: after[name] for name in before if name != "latest.json"} == {
        name: data for name, data in before.items() if name != "latest.json"
    }
    assert store.read_json("latest.json")["run_id"] == following.run_id
    assert not store.list(f"data/run={following.run_id}")


def test_open_run_shows_nothing_to_readers(store: Store) -> None:
    run = open_run(store)
    merge(run, METADATA, 4)
    assert all(name.startswith("_") for name in store.list(""))
    assert History.load(store).runs == ()
