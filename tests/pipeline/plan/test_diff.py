"""The plan against a brute-force one, on random buckets with random histories."""

from collections import Counter

import pyarrow as pa
import pytest

from pipeline.contract.errors import RunError
from pipeline.contract.schema import WORK
from pipeline.output.ledger.hashes import ShardNames
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.merging.dropping import drop_rows
from pipeline.output.open_run import Deferred, OpenRun
from pipeline.plan.diff import Plan, Work
from pipeline.sources.formats.registry import WEBDATASET
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.inputs.world import Row, World, is_shard, listing_of, random_world, table_of

SEEDS = range(40)


def plan_of(world: World, store: Store, *retry: str) -> tuple[Plan, Work, OpenRun]:
    open_run = world.open_run(store)
    plan = Plan(world.ledger(), open_run, frozenset(retry))
    early = sum((plan.add(table) for table in listing_of(world.listing)), Work())
    late = plan.finish()
    # What is begun before stale rows are dropped has none of them.
    stale = {row.object for part in world.parts for row in part if not world.is_current(row)}
    assert not stale & set(uris_of(early))
    assert set(uris_of(late)) <= stale
    drop_rows(open_run, plan.stale())
    return plan, early + late, open_run


def uris_of(work: Work) -> list[str]:
    return [uri for table in (*work.images, *work.shards) for uri in table["uri"].to_pylist()]


def staged_rows(run: OpenRun) -> Counter[tuple[str, str]]:
    rows = Counter[tuple[str, str]]()
    for part in run.parts:
        table = read_table(run.store, part.name)
        assert len(table) == part.rows
        rows.update(zip(table["uri"].to_pylist(), table["source_version"].to_pylist(), strict=True))
    return rows


@pytest.mark.parametrize("seed", SEEDS)
def test_plan_is_what_brute_force_says(seed: int, local_store: Store) -> None:
    world = random_world(seed)
    retry = ["timeout"] if seed % 2 else []
    plan, work, run = plan_of(world, local_store, *retry)
    counts, todo = world.expected(frozenset(retry))

    assert {name: value for name, value in plan.counts.to_dict().items() if value} == {
        name: value for name, value in counts.items() if value
    }
    assert sorted(uris_of(work)) == sorted(todo)
    assert plan.is_empty == work.is_empty == (not todo)
    assert work.num_images == plan.num_images == len(todo) - work.num_shards
    for row in (row for table in work.shards for row in table.to_pylist()):
        done = [member.uri for member in world.done(row["uri"])]
        assert sorted(row["_done"] or []) == sorted(done)

    # Of the open run there is left what is still good, and nothing else, also for the next attempt.
    good = Counter((r.uri, r.version) for uri in world.listing for r in world.done(uri))
    again = OpenRun.find(local_store)
    assert again is not None
    assert staged_rows(run) == staged_rows(again) == good
    assert run.closed_shards() == again.closed_shards()
    assert set(run.closed_shards()) <= {uri for uri in world.listing if world.done(uri)}


@pytest.mark.parametrize("seed", SEEDS)
def test_expected_rows_count_what_the_run_will_hold(seed: int, local_store: Store) -> None:
    world = random_world(seed)
    plan, _, run = plan_of(world, local_store)
    _, todo = world.expected(frozenset())
    sizes = {uri: len(world.done(uri)) + seed % 5 + 1 for uri in todo if is_shard(uri)}
    finished = sum(len(world.done(uri)) for uri in world.listing if uri not in todo)
    images = len(todo) - len(sizes)
    closed = {**run.closed_shards(), **sizes}

    everything = finished + images + sum(sizes.values())
    assert plan.expected_rows(closed, Deferred()) == everything
    # The deadline leaves some work undone: no shard that was begun.
    later = {uri: size for uri, size in sizes.items() if not world.done(uri) and size % 2}
    for uri in later:
        del closed[uri]
    deferred = Deferred(images=images // 2, shards=frozenset(later))
    left = images // 2 + sum(later.values())
    assert plan.expected_rows(closed, deferred) == everything - left


def test_expected_rows_need_every_shard_closed(local_store: Store) -> None:
    world = World(listing={"a.tar": "A", "b.tar": "A"})
    plan, _, _ = plan_of(world, local_store)
    with pytest.raises(RunError, match=r"1 shards.*b\.tar.*start the same command again"):
        plan.expected_rows({"a.tar": 3}, Deferred())


MEMBERS = [Row(f"s.tar#{n}.jpg", "A", None, "s.tar") for n in range(4)]


class TestShards:
    """States in which a killed attempt may leave a shard of four members."""

    def todo(self, store: Store, **world: object) -> list[str] | None:
        """The members not to be done again; None if the shard is not to be read."""
        _, work, _ = plan_of(World(listing={"s.tar": "A"}, **world), store)  # type: ignore[arg-type]
        if work.is_empty:
            return None
        done: list[str] = work.shards[0]["_done"].to_pylist()[0] or []
        return done

    def test_closed(self, local_store: Store) -> None:
        assert self.todo(local_store, parts=[MEMBERS], closed={"s.tar": 4}) is None

    def test_begun(self, local_store: Store) -> None:
        done = self.todo(local_store, parts=[MEMBERS[:2]])
        assert done == ["s.tar#0.jpg", "s.tar#1.jpg"]

    def test_last_row_is_there_but_an_earlier_one_is_not(self, local_store: Store) -> None:
        """Blocks of a shard are written by different tasks, the last one perhaps first."""
        done = self.todo(local_store, parts=[MEMBERS[2:]], closed={"s.tar": 4})
        assert done == ["s.tar#2.jpg", "s.tar#3.jpg"]

    def test_closure_of_an_older_version_says_nothing_of_the_new_one(
        self, local_store: Store
    ) -> None:
        """Closed in version B with two rows; then begun in version A, two rows of four."""
        old = [Row(m.uri, "B", None, m.shard) for m in MEMBERS[:2]]
        world = World(listing={"s.tar": "A"}, parts=[old], closed={"s.tar": 2})
        _, _, run = plan_of(world, local_store)
        assert not run.parts
        assert not run.closed_shards()

    def test_part_with_an_old_shard_beside_a_good_image(self, local_store: Store) -> None:
        old = [Row(m.uri, "B", None, m.shard) for m in MEMBERS[:2]]
        part = [Row("a.jpg", "A"), *old]
        world = World(
            listing={"s.tar": "A", "a.jpg": "A"}, parts=[part, MEMBERS[:2]],
            closed={"s.tar": 2},
        )  # fmt: skip
        world.parts = [part]
        plan_of(world, local_store)
        again = OpenRun.find(local_store)
        assert again is not None
        assert again.closed_shards() == {}
        assert staged_rows(again) == {("a.jpg", "A"): 1}

    def test_changed_between_closed_runs(self, local_store: Store) -> None:
        runs = [[Row(m.uri, "B", None, m.shard) for m in MEMBERS]]
        assert self.todo(local_store, runs=runs) == []

    @pytest.mark.parametrize("name", ["s.TAR", "s.Tgz", "s.tar.GZ", "new\nline.tar", "a.tar/s.tar"])
    def test_odd_names_of_shards(self, local_store: Store, name: str) -> None:
        rows = [Row(f"{name}#{n}\n.jpg", "A", None, name) for n in range(3)]
        plan, _, _ = plan_of(World(listing={name: "A"}, runs=[rows]), local_store)
        assert plan.is_empty
        assert plan.counts.unchanged == 3

    def test_shards_that_were_named_and_are_called_like_none(self, local_store: Store) -> None:
        names = ShardNames((".tar",), frozenset({"/d/x.bin", "/d/y.bin"}))
        closed = [Row(f"/d/x.bin#{n}.jpg", "A", None, "/d/x.bin") for n in range(3)]
        begun = [Row(f"/d/y.bin#{n}.jpg", "A", None, "/d/y.bin") for n in range(2)]
        ledger = Ledger.from_tables([table_of(closed)], names)
        plan = Plan(ledger, World(parts=[begun]).open_run(local_store))
        (listing,) = listing_of({"/d/x.bin": "A", "/d/y.bin": "A"})
        shards = pa.array([WEBDATASET.kind] * 2)
        work = plan.add(listing.set_column(listing.column_names.index("kind"), "kind", shards))
        assert uris_of(work) == ["/d/y.bin"]
        assert work.shards[0]["_done"].to_pylist() == [[row.uri for row in begun]]
        plan.finish()
        assert (plan.counts.unchanged, plan.counts.finished, plan.counts.vanished) == (3, 2, 0)
        assert not len(plan.stale().keys)

    def test_shard_that_failed_on_the_way_is_tried_again_when_asked(
        self, local_store: Store
    ) -> None:
        rows = [*MEMBERS[:2], Row("s.tar", "A", "storage_error", "s.tar")]
        world = World(listing={"s.tar": "A"}, runs=[rows])
        plan, _, _ = plan_of(world, local_store)
        assert plan.is_empty
        assert plan.counts.failed_before == {"storage_error": 1}
        plan, _, _ = plan_of(world, local_store, "storage_error")
        assert (plan.counts.retried, plan.counts.shards, plan.counts.unchanged) == (1, 1, 0)


class TestImages:
    def test_content_that_changes_and_changes_back_is_done_each_time(
        self, local_store: Store
    ) -> None:
        runs = [[Row("a.jpg", version)] for version in "AB"]
        plan, _, _ = plan_of(World(listing={"a.jpg": "A"}, runs=runs), local_store)
        assert plan.counts.changed == 1
        plan, _, _ = plan_of(World(listing={"a.jpg": "B"}, runs=runs), local_store)
        assert plan.counts.unchanged == 1

    def test_newest_run_says_whether_a_failure_stands(self, local_store: Store) -> None:
        runs = [[Row("a.jpg", "A", "timeout")], [Row("a.jpg", "A")]]
        plan, _, _ = plan_of(World(listing={"a.jpg": "A"}, runs=runs), local_store, "timeout")
        assert plan.is_empty
        runs.reverse()
        plan, _, _ = plan_of(World(listing={"a.jpg": "A"}, runs=runs), local_store, "timeout")
        assert plan.counts.retried == 1

    def test_retried_row_of_an_earlier_attempt_is_not_retried_again(
        self, local_store: Store
    ) -> None:
        row = Row("a.jpg", "A", "timeout")
        world = World(listing={"a.jpg": "A"}, runs=[[row]], parts=[[row]])
        plan, _, _ = plan_of(world, local_store, "timeout")
        assert plan.is_empty
        assert plan.counts.finished == 1

    def test_what_vanished_and_comes_back_is_new(self, local_store: Store) -> None:
        runs = [[Row("a.jpg", "A"), Row("b.jpg", "A")], [Row("a.jpg", None), Row("b.jpg", None)]]
        plan, _, _ = plan_of(World(listing={"a.jpg": "A"}, runs=runs), local_store)
        assert (plan.counts.new, plan.counts.changed, plan.counts.unchanged) == (1, 0, 0)
        assert plan.counts.vanished == 0, "the row that says so stands"

    def test_a_full_run_knows_what_vanished(self, local_store: Store) -> None:
        rows = [Row("a.jpg", "A"), Row("b.jpg", "A", "timeout"), *MEMBERS]
        world = World(listing={"a.jpg": "A", "s.tar": "A"}, runs=[rows])
        plan = Plan(world.ledger(), OpenRun(local_store), frozenset({"timeout"}), full=True)
        work = [plan.add(table) for table in listing_of(world.listing)]
        plan.finish()
        assert sorted(uri for some in work for uri in uris_of(some)) == ["a.jpg", "s.tar"]
        assert (plan.counts.new, plan.counts.unchanged, plan.counts.vanished) == (2, 0, 1)
        assert plan.counts.failed_before == {}

    def test_object_that_vanished_between_attempts_leaves_the_run(self, local_store: Store) -> None:
        world = World(listing={"a.jpg": "A"}, parts=[[Row("a.jpg", "A"), Row("b.jpg", "A")]])
        plan, _, run = plan_of(world, local_store)
        assert (plan.counts.finished, plan.counts.vanished) == (1, 0)
        assert staged_rows(run) == {("a.jpg", "A"): 1}


def test_blocks_hold_shards_one_by_one_and_then_the_images(local_store: Store) -> None:
    names = [f"{n}.jpg" for n in range(10)] + ["a.tar", "b.tar"]
    _, work, _ = plan_of(World(listing=dict.fromkeys(names, "A")), local_store)
    blocks = list(work.blocks(4))
    assert all(block.schema == WORK for block in blocks)
    uris = [block["uri"].to_pylist() for block in blocks]
    assert uris == [["a.tar"], ["b.tar"], names[:4], names[4:8], names[8:10]]
