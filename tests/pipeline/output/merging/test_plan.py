"""Which rows go into which file: as sorting all of them at once would have it."""

import random
from itertools import chain

import pytest

from pipeline.output.merging.plan import (
    MOST_READ,
    FilePlan,
    Spread,
    one_after_the_other,
    uri_at,
)
from pipeline.output.open_run import OpenRun, Part, PartFooter
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import commit, result_rows, spread_run


def uris_of(plan: FilePlan, store: Store) -> list[str]:
    """What the file will hold, in the order of its slices."""
    found = []
    for one in plan.slices:
        uris = read_table(store, one.name)["uri"].slice(one.start, one.stop - one.start)
        found += uris.filter(plan.holds(uris)).to_pylist()
    return found


def all_uris(run: OpenRun) -> list[str]:
    return [u for part in run.parts for u in read_table(run.store, part.name)["uri"].to_pylist()]


@pytest.mark.parametrize("seed", range(20))
def test_one_after_the_other(seed: int) -> None:
    rng = random.Random(seed)
    parts = [Part(str(n), rng.randint(0, 9), PartFooter()) for n in range(rng.randint(0, 12))]
    size = rng.randint(1, 15)
    rows = [(part.name, row) for part in parts for row in range(part.rows)]
    files = [
        [(one.name, row) for one in plan.slices for row in range(one.start, one.stop)]
        for plan in one_after_the_other(parts, size)
    ]
    assert files == [rows[start : start + size] for start in range(0, len(rows), size)]


@pytest.mark.parametrize("overtaking", [0, 7, 30])
@pytest.mark.parametrize("size", [60, 64, 100, 119, 120])
def test_files_take_ranges_of_exact_size(local_store: Store, overtaking: int, size: int) -> None:
    run = spread_run(local_store, 120, 10, overtaking)
    spread = Spread.of(run.parts)
    assert spread
    cuts = spread.cuts(size)
    assert cuts is not None
    plans = list(spread.files([uri_at(cut, local_store) for cut in cuts]))
    files = [sorted(uris_of(plan, local_store)) for plan in plans]
    expected = sorted(all_uris(run))
    assert files == [expected[start : start + size] for start in range(0, 120, size)]
    assert [plan.number for plan in plans] == list(range(len(plans)))


def test_a_file_reads_only_the_parts_of_its_range(local_store: Store) -> None:
    run = spread_run(local_store, 120, 10, 0)
    spread = Spread.of(run.parts)
    assert spread
    cuts = spread.cuts(60)
    assert cuts is not None
    first, second = spread.files([uri_at(cut, local_store) for cut in cuts])
    assert [one.name for one in first.slices] == [part.name for part in run.parts[:6]]
    assert [one.name for one in second.slices] == [part.name for part in run.parts[6:]]


def test_parts_that_all_overlap_are_not_read_again_and_again(local_store: Store) -> None:
    run = spread_run(local_store, 120, 10, 10_000)
    spread = Spread.of(run.parts)
    assert spread
    assert spread.cuts(30) is None
    assert spread.cuts(120) == []


@pytest.mark.parametrize(("overlapping", "is_sorted"), [(1, True), (2, False)])
def test_how_often_a_row_may_be_read(overlapping: int, is_sorted: bool) -> None:
    """At the one cut, this many parts of three are read twice."""
    spans = [("a", "b"), ("c", "e"), ("d" if overlapping == 2 else "f", "g")]
    spread = Spread.of([Part(span[0], 10, PartFooter(span=span)) for span in spans])
    assert spread
    assert 1 + 1 / 3 <= MOST_READ < 1 + 2 / 3
    assert (spread.cuts(15) is not None) == is_sorted


def test_parts_that_do_not_say_where_they_lie() -> None:
    known = Part("a", 1, PartFooter(span=("a", "a")))
    assert Spread.of([known, Part("b", 1, PartFooter())]) is None
    assert Spread.of([]) is not None


def test_a_uri_that_stands_on_both_sides_of_a_cut_is_in_one_file(local_store: Store) -> None:
    run = spread_run(local_store, 40, 10, 0)
    for _ in range(3):
        rows = result_rows(["/in/000020.jpg"])
        commit(run, rows, PartFooter().spanning(rows["uri"]))
    spread = Spread.of(run.parts)
    assert spread
    cuts = spread.cuts(22)
    assert cuts is not None
    files = [uris_of(plan, local_store) for plan in
             spread.files([uri_at(cut, local_store) for cut in cuts])]  # fmt: skip
    assert sorted(chain(*files)) == sorted(all_uris(run))
    assert sorted(uris.count("/in/000020.jpg") for uris in files) == [0, 4]
