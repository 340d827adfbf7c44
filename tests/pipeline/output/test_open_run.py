"""The open run: which parts belong to it after any sequence of attempts, and how it is left."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import DamagedFileError
from pipeline.output import open_run as open_run_module
from pipeline.output.merging.dropping import drop_rows
from pipeline.output.open_run import OpenRecord, OpenRun, Part, PartFooter, Thumbnail
from pipeline.plan.diff import Plan
from pipeline.storage.parquet import read_table, write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import Row, World, listing_of, table_of
from tests.support.processes.killed import KilledError, killed_after
from tests.support.servers.seaweedfs import Bucket

IMAGES = {f"{n}.jpg": "A" for n in range(6)}


def commit(run: OpenRun, task: int, rows: Iterable[Row], footer: PartFooter | None = None) -> Part:
    """What a write task does; a task of a killed attempt does so at any later time."""
    table = (footer or PartFooter()).attach(table_of(rows))
    write_table(run.store, run.part_name(task), table)
    return Part(run.part_name(task), len(table), footer or PartFooter())


def rows(*names: str, version: str = "A") -> list[Row]:
    return [Row(name, version) for name in names]


def attempt(store: Store) -> OpenRun:
    """What every start of the same command does."""
    run = OpenRun.find(store)
    if run is None:
        return OpenRun.begin(store, OpenRecord())
    run.save()
    return run


def plan_of(listing: dict[str, str], run: OpenRun) -> Plan:
    plan = Plan(World().ledger(), run)
    plan.survey(listing_of(listing))
    drop_rows(run, plan.stale())
    return plan


def uris(run: OpenRun) -> list[str]:
    found: list[str] = []
    for part in run.parts:
        found += read_table(run.store, part.name)["uri"].to_pylist()
    return sorted(found)


def test_next_attempt_takes_over_what_was_committed(store: Store) -> None:
    first = attempt(store)
    commit(first, 0, rows("0.jpg", "1.jpg"))
    second = attempt(store)
    assert second.run_id == first.run_id
    assert uris(second) == ["0.jpg", "1.jpg"]
    commit(second, 0, rows("2.jpg"))
    third = attempt(store)
    assert uris(third) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len({first.attempt, second.attempt, third.attempt}) == 3


def test_retried_write_task_replaces_its_own_part(store: Store) -> None:
    run = attempt(store)
    commit(run, 3, rows("0.jpg"))
    commit(run, 3, rows("0.jpg", "1.jpg"))
    assert uris(attempt(store)) == ["0.jpg", "1.jpg"]


def test_part_of_a_late_worker_never_counts(store: Store) -> None:
    """The driver is killed; one of its workers still commits, when the next attempt is at work."""
    first = attempt(store)
    commit(first, 0, rows("0.jpg"))
    second = attempt(store)
    commit(first, 1, rows("1.jpg", "2.jpg"))  # late
    commit(second, 0, rows("1.jpg"))
    commit(second, 1, rows("2.jpg"))
    assert uris(second) == ["0.jpg"]
    third = attempt(store)
    assert uris(third) == ["0.jpg", "1.jpg", "2.jpg"]
    commit(first, 2, rows("0.jpg"))  # very late
    commit(second, 2, rows("2.jpg"))
    assert uris(attempt(store)) == ["0.jpg", "1.jpg", "2.jpg"]


def test_half_written_files_are_ignored(local_store: Store) -> None:
    run = attempt(local_store)
    good = commit(run, 0, rows("0.jpg"))
    whole = local_store.read_bytes(good.name)
    directory = f"{run.directory}/parts"
    # What a kill leaves, and what a disk may leave that lied about fsync.
    local_store.write_bytes(f"{directory}/.{run.attempt}-000001.parquet.77.tmp", whole[:100])
    for task, size in enumerate((0, 3, len(whole) // 2, len(whole) - 1), start=2):
        local_store.write_bytes(run.part_name(task), whole[:size])
    again = attempt(local_store)
    assert [part.name for part in again.parts] == [good.name]
    plan = plan_of(IMAGES, again)
    assert (plan.counts.finished, plan.counts.new) == (1, 5)


def test_rows_of_files_that_changed_between_attempts_are_dropped(store: Store) -> None:
    first = attempt(store)
    commit(first, 0, rows("0.jpg", "1.jpg"))
    commit(first, 1, rows("2.jpg"))
    second = attempt(store)
    listing = IMAGES | {"1.jpg": "B", "2.jpg": "B"}
    plan = plan_of(listing, second)
    assert (plan.counts.finished, plan.counts.new) == (1, 5)
    assert uris(second) == ["0.jpg"]
    commit(second, 0, rows("1.jpg", version="B"))
    third = attempt(store)
    plan = plan_of(listing, third)
    assert (plan.counts.finished, plan.counts.new) == (2, 4)
    assert uris(third) == ["0.jpg", "1.jpg"]


def test_thumbnails_of_dropped_rows_go_with_them(local_store: Store) -> None:
    shots = tuple(Thumbnail(name, "x", "") for name in ("0.jpg", "1.jpg"))
    commit(attempt(local_store), 0, rows("0.jpg", "1.jpg"), PartFooter(thumbnails=shots))
    second = attempt(local_store)
    plan_of({"0.jpg": "A", "1.jpg": "B"}, second)
    for run in (second, attempt(local_store)):
        assert [part.footer.thumbnails for part in run.parts] == [shots[:1]]


def test_footer_travels_inside_the_part(local_store: Store) -> None:
    footer = PartFooter({"é.tar": 3}, (Thumbnail("a", None, "eA=="),))
    part = commit(attempt(local_store), 0, rows("0.jpg"), footer)
    (found,) = attempt(local_store).parts
    assert found == part
    metadata = pq.read_schema(local_store.path(part.name)).metadata
    assert PartFooter.of(pa.schema([], metadata=metadata)) == footer


def test_members_are_looked_for_where_they_may_be(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what parts say of their URIs; some say nothing."""
    shards = [f"s3://b/{n}.tar" for n in range(5)]
    rows = [[Row(f"{uri}#{n}.jpg", "A", None, uri) for n in range(3)] for uri in shards]
    rows[3].append(Row(shards[3], "A", "shard_corrupt", shards[3]))
    open_run = World(parts=rows).open_run(local_store)
    read: list[str] = []

    def noted(store: Store, names: Any, columns: Any) -> Any:
        read.extend(names)
        return real(store, names, columns)

    real = vars(open_run_module)["read_columns"]
    monkeypatch.setattr(open_run_module, "read_columns", noted)
    found = open_run.members_done({shards[1], shards[3], "s3://b/1.tar#0", "s3://b/9.tar"})
    assert found == {
        shards[1]: [row.uri for row in rows[1]],
        shards[3]: [row.uri for row in rows[3]],
        "s3://b/1.tar#0": [],
        "s3://b/9.tar": [],
    }
    assert read == [open_run.parts[number].name for number in (0, 1, 3)]
    assert open_run.members_done(set()) == {}


class TestDiscard:
    def test_nothing_is_left(self, store: Store) -> None:
        run = attempt(store)
        commit(run, 0, rows("0.jpg"))
        run.discard()
        assert OpenRun.find(store) is None
        assert store.list("") == {}

    def test_interrupted_at_any_point_it_is_no_open_run_any_more(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or the next attempt would take up a run of which some parts are already gone."""
        run = attempt(store)
        commit(run, 0, rows("0.jpg"))

        def fail(self: Store, directory: str, names: Iterable[str]) -> None:
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "clear", fail)  # of what lies beside the record, which goes first
            with pytest.raises(OSError, match="killed"):
                run.discard()
        assert store.list("")
        assert OpenRun.find(store) is None
        assert store.list("")  # whoever only looks changes nothing
        new = OpenRun.begin(store, OpenRecord())
        assert list(store.list("")) == [f"{new.directory}/open.json"]

    def test_killed_after_any_request_it_is_whole_or_gone(
        self, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though what is to be removed is listed while the record is."""
        for steps in range(3):
            part = Store(f"{s3_bucket.uri}/{steps}")
            run = attempt(part)
            for task in range(2):
                commit(run, task, rows(f"{task}.jpg"))
            with killed_after(steps, monkeypatch, part), pytest.raises(KilledError):
                run.discard()
            found = OpenRun.find(part)
            assert (found is not None) == (steps == 0)
            assert found is None or uris(found) == ["0.jpg", "1.jpg"]
            OpenRun.begin(part, OpenRecord()).discard()
            assert part.list("") == {}


class TestRecord:
    def test_what_was_written_is_written_again(self) -> None:
        """By the second attempt of a run of version 0.1.0, before the record had a type."""
        written = (Path(__file__).parents[1] / "contract/written/open.json").read_bytes()
        record = OpenRecord.from_json(written, "open.json")
        assert (record.attempts, record.full, len(record.parts)) == (2, False, 1)
        assert record.inputs["uris"] == ["/photos"]
        assert Store.json_bytes(record.to_dict()) == written

    def test_every_attempt_is_counted_and_full_stays_full(self, local_store: Store) -> None:
        OpenRun.begin(local_store, OpenRecord(started="once"))
        for full in (False, True, False):
            found = OpenRun.find(local_store)
            assert found is not None
            found.take_up(full=full)
        found = OpenRun.find(local_store)
        assert found is not None
        assert (found.record.started, found.record.attempts) == ("once", 4)
        assert found.record.full

    def test_a_damaged_one_says_what_to_do(self, local_store: Store) -> None:
        run = OpenRun.begin(local_store, OpenRecord())
        local_store.write_bytes(f"{run.directory}/open.json", b"\0\0")
        with pytest.raises(DamagedFileError, match=r"open\.json is damaged: .*; remove it"):
            OpenRun.find(local_store)
