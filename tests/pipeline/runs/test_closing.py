"""Balancing the books: a run closes only if every image has exactly one row."""

import pytest

from pipeline.contract.errors import RunError
from pipeline.contract.manifest import Counts
from pipeline.output.ledger import Ledger
from pipeline.output.merge import merge
from pipeline.output.open_run import Deferred, OpenRun, PartFooter
from pipeline.output.publish import is_closed
from pipeline.plan.diff import Plan
from pipeline.runs.closing import balance
from pipeline.storage.store import Store
from tests.support.inputs.world import listing_of
from tests.support.outputs.open_runs import METADATA, commit, names, open_run, result_rows


class TestBalance:
    def books(self, run: OpenRun, **listing: str) -> Counts:
        empty = OpenRun(run.store)
        objects = dict.fromkeys(names(10), "A") | {
            name.replace("_", "."): v for name, v in listing.items()
        }
        plan = Plan(Ledger.from_tables([]), empty)
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
