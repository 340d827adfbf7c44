"""Closing: a run closes only if every image has exactly one row, and then says what it did."""

import weakref
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ray.data._internal.util import _annotate_exception_with_retry_context
from ray.exceptions import RayTaskError

from pipeline.contract import layout
from pipeline.contract.errors import LostNodesError, RunError
from pipeline.contract.manifest import Counts, Drift, Manifest
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.schema import vanished_rows
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import merge
from pipeline.output.open_run import Deferred, OpenRecord, OpenRun, PartFooter
from pipeline.output.publish import is_closed
from pipeline.plan.diff import Plan
from pipeline.runs.closing import Account, balance, close_run
from pipeline.runs.endings import continued, run_errors, saved
from pipeline.storage.parquet import read_table, write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import Row, World, listing_of, table_of
from tests.support.outputs.open_runs import METADATA, SCHEMA, commit, names, open_run, result_rows


class TestBalance:
    def books(self, run: OpenRun, **listing: str) -> Counts:
        empty = OpenRun(run.store)
        objects = dict.fromkeys(names(10), "A") | {
            name.replace("_", "."): v for name, v in listing.items()
        }
        plan = Plan(World().ledger(), empty)
        plan.survey(listing_of(objects))
        expected = plan.expected_rows(run.closed_shards(), Deferred())
        return balance(run, merge(run, METADATA, 4), expected, plan.counts.unchanged)

    def test_balanced(self, local_store: Store) -> None:
        books = self.books(open_run(local_store))
        assert books == Counts(listed=10, ok=9, failed=1, skipped=0)

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
            assert self.books(run, a_tar="A").listed == 13
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


def account(**changes: Any) -> Account:
    known = Account(
        expected=10,
        skipped=3,
        model=Provenance(model="m", weights_sha256="0" * 64, fingerprint="f00d"),
        identity=Identity(fingerprint="f00d", scores="softmax", top_k=2),
        classes=["cat", "ü"],
        spec={"policy": {"full": False}},
    )
    return replace(known, **changes)


def close(store: Store, run: OpenRun, **changes: Any) -> Manifest:
    return close_run(run, History.load(store).runs, account(**changes))


class TestCloseRun:
    def test_files_and_manifest_and_latest_agree(self, store: Store) -> None:
        run = open_run(store)
        manifest = close(store, run, rows_per_file=4)
        assert manifest.counts == Counts(listed=13, ok=9, failed=1, skipped=3)
        assert [file.rows for file in manifest.files] == [4, 4, 2]
        assert sorted(manifest.file_names) == sorted(store.list("data"))
        assert (manifest.labels, manifest.failures) == ({"ü": 9}, {"corrupt": 1})
        metadata = read_table(store, manifest.file_names[0]).schema.metadata
        assert metadata == {
            b"cvt.run_id": run.run_id.encode(), b"cvt.model": b"m",
            b"cvt.weights_sha256": b"0" * 64, b"cvt.fingerprint": b"f00d",
        }  # fmt: skip
        assert store.read_json(layout.LATEST) == {
            "run_id": run.run_id,
            "manifest": layout.manifest_file(run.run_id),
            "counts": {"listed": 13, "ok": 9, "failed": 1, "skipped": 3},
        }
        assert History.load(store).runs == (manifest,)
        assert OpenRun.find(store) is None

    def test_what_only_some_kinds_of_run_say_is_no_key_of_others(self, local_store: Store) -> None:
        computed = close(local_store, open_run(local_store), vanished=vanished_rows([], SCHEMA))
        content = local_store.read_json(layout.manifest_file(computed.run_id))
        assert content["vanished"] == []
        assert "source_runs" not in content
        relabelled = close(local_store, open_run(local_store), source_runs=("a", "b"))
        content = local_store.read_json(layout.manifest_file(relabelled.run_id))
        assert content["source_runs"] == ["a", "b"]
        assert "vanished" not in content

    def test_rows_of_vanished_images_count_in_no_book(self, local_store: Store) -> None:
        gone = vanished_rows(["/in/b.jpg", "/in/gone.jpg"], SCHEMA)
        manifest = close(local_store, open_run(local_store), vanished=gone)
        assert manifest.counts == Counts(listed=13, ok=9, failed=1, skipped=3)
        assert manifest.vanished == ("/in/b.jpg", "/in/gone.jpg")
        assert (manifest.labels, manifest.failures) == ({"ü": 9}, {"corrupt": 1})
        (name,) = manifest.file_names
        table = read_table(local_store, name)
        assert table["uri"].to_pylist() == sorted(table["uri"].to_pylist())
        assert table.filter(pc.equal(table["status"], "vanished")).to_pylist() == [
            dict.fromkeys(SCHEMA.names) | {"uri": uri, "status": "vanished"}
            for uri in manifest.vanished
        ]
        assert manifest.summary.scores is not None

    def test_a_run_of_nothing_but_vanished_images(self, local_store: Store) -> None:
        gone = vanished_rows(["/in/gone.jpg"], SCHEMA)
        run = OpenRun.begin(local_store, OpenRecord())
        manifest = close(local_store, run, expected=0, vanished=gone)
        assert manifest.counts == Counts(listed=3, ok=0, failed=0, skipped=3)
        assert [file.rows for file in manifest.files] == [1]

    def test_a_vanished_image_with_a_row_does_not_balance(self, local_store: Store) -> None:
        gone = vanished_rows(names(1), SCHEMA)
        with pytest.raises(RunError, match="1 of them repeated"):
            close(local_store, open_run(local_store), vanished=gone)

    def test_the_last_touch_comes_before_anything_is_counted(self, local_store: Store) -> None:
        def complete(table: pa.Table) -> pa.Table:
            at = table.schema.get_field_index("label")
            return table.set_column(at, table.schema.field(at), pa.array(["cat"] * len(table)))

        manifest = close(local_store, open_run(local_store), complete=complete)
        assert manifest.labels == {"cat": 10}
        assert read_table(local_store, manifest.file_names[0])["label"][0].as_py() == "cat"

    def test_names_of_classes_stand_beside_labels_alone(self, local_store: Store) -> None:
        labelled = close(local_store, open_run(local_store))
        assert local_store.read_json(layout.classes_file(labelled.run_id)) == ["cat", "ü"]
        nothing = OpenRun.begin(local_store, OpenRecord())
        manifest = close(local_store, nothing, expected=0)
        assert not local_store.exists(layout.classes_file(manifest.run_id))

    def test_no_rows_are_compared_with_no_run(self, local_store: Store) -> None:
        for _ in range(2):
            run = open_run(local_store, 120)
            first = close(local_store, run, expected=120)
        assert len(first.drift.runs) == 1
        nothing = OpenRun.begin(local_store, OpenRecord())
        assert close(local_store, nothing, expected=0).drift == Drift()

    def test_when_the_books_do_not_balance_nothing_is_published(self, local_store: Store) -> None:
        run = open_run(local_store)
        with pytest.raises(RunError, match="do not balance"):
            close(local_store, run, expected=11)
        assert local_store.list("data") == local_store.list("runs") == {}
        found = OpenRun.find(local_store)
        assert found is not None
        assert close(local_store, found).counts.computed == 10


@pytest.mark.parametrize("rows", [0, 2])
def test_an_interrupt_says_what_is_saved(rows: int, local_store: Store) -> None:
    open_run = OpenRun.begin(local_store, OpenRecord())
    if rows:
        table = table_of([Row(f"{number}.jpg", "A") for number in range(rows)])
        write_table(local_store, open_run.part_name(0), PartFooter().attach(table))
    with pytest.raises(KeyboardInterrupt) as interrupt, saved(local_store):
        raise KeyboardInterrupt
    notes = getattr(interrupt.value, "__notes__", [])
    assert notes == (["2 images are saved"] if rows else [])


@pytest.mark.parametrize("error", [OSError(28, "OUT is full"), OSError("OUT is full")], ids=repr)
def test_what_stops_a_run_is_said_without_advice_of_ray(error: OSError) -> None:
    annotated = _annotate_exception_with_retry_context(
        error,
        description="apply UDF transform",
        attempts=1,
        max_attempts=1,
        total_backoff_s=0,
        exception_str="",
    )
    expected = "OUT is full; start the same command again"
    with pytest.raises(RunError, match=expected) as stopped, run_errors():
        raise RayTaskError("write", "a traceback", annotated)
    assert "backoff" not in str(stopped.value)


@pytest.mark.parametrize("error", [RunError("no room"), KeyboardInterrupt()], ids=repr)
def test_whoever_keeps_an_error_keeps_nothing_else(error: BaseException) -> None:
    """As a notebook does: actors, and their CPUs, would be kept with it."""
    found = []

    def work() -> None:
        executor = {"an actor"}
        found.append(weakref.ref(executor))
        raise error

    with pytest.raises(type(error)) as kept, run_errors():
        work()
    assert kept.value is error
    assert [one() for one in found] == [None]


def test_a_run_that_lost_nodes_goes_on_with_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """As often as that happens; what else ends it, ends it."""
    ends: list[Exception] = [LostNodesError("3 of 4"), LostNodesError("2 of 3"), RunError("lease")]

    def attempt() -> None:
        raise ends.pop(0)

    with pytest.raises(RunError, match="lease"):
        continued(attempt)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["3 of 4; continuing there", "2 of 3; continuing there"]
