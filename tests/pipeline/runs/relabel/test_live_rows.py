"""The newest row of every image, over several runs."""

from pipeline.contract.schema import vanished_rows
from pipeline.output.ledger.history import History
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import CLASSES, rows, softmax


class TestLiveRows:
    def test_the_newest_row_of_each_uri(self, store: Store) -> None:
        close_run(store, rows_of(softmax(0, 30), CLASSES, failures=["timeout"] * 3), CLASSES)
        close_run(store, rows_of(softmax(1, 10), CLASSES), CLASSES, rows_per_part=3)
        close_run(store, rows_of(softmax(2, 5), CLASSES, prefix="other"), CLASSES)
        live = LiveRows.of(History.load(store))
        found = [row for table in live.batches(4) for row in table.to_pylist()]
        expected = rows(store, "00000000") | rows(store, "00000001") | rows(store, "00000002")
        assert len(live) == len(found) == 38
        assert {row["uri"]: row for row in found} == expected
        assert not len(live.without(live))

    def test_a_vanished_image_has_none_until_it_comes_back(self, local_store: Store) -> None:
        table = rows_of(softmax(0, 30), CLASSES)
        close_run(local_store, table, CLASSES)
        gone = vanished_rows(table["uri"].to_pylist()[:3], table.schema)
        close_run(local_store, gone, CLASSES, expected=0)
        close_run(local_store, table.slice(2, 1), CLASSES)
        live = LiveRows.of(History.load(local_store))
        found = [uri for part in live.batches(4) for uri in part["uri"].to_pylist()]
        assert sorted(found) == table["uri"].to_pylist()[2:]

    def test_runs_before_a_full_one_do_not_count(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 30), CLASSES), CLASSES)
        close_run(local_store, rows_of(softmax(1, 10), CLASSES), CLASSES, full=True)
        assert len(LiveRows.of(History.load(local_store))) == 10
