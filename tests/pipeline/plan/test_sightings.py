"""What a listing has met of a ledger, and what it has not."""

import numpy as np
import pytest

from pipeline.output.ledger.hashes import HashIndex, hash_strings
from pipeline.output.ledger.ledger import Ledger
from pipeline.plan.sightings import Sightings
from tests.support.inputs.world import SHARD_NAMES, Row, is_shard, listing_of, table_of

ROWS = [
    Row("same.jpg", "A"),
    Row("changed.jpg", "A"),
    Row("gone.jpg", "A"),
    Row("same.tar#1.jpg", "A", shard="same.tar"),
    Row("same.tar#2.jpg", "old", shard="same.tar"),
    Row("changed.tar#1.jpg", "A", shard="changed.tar"),
    Row("gone.tar#1.jpg", "A", shard="gone.tar"),
    Row("broken.tar", "A", "shard_corrupt", "broken.tar"),
]


def names(index: HashIndex) -> set[str]:
    table = table_of(ROWS)
    found, _ = index.find(hash_strings(table["uri"]))
    assert found.sum() == len(index.keys)
    return {uri for uri, is_there in zip(table["uri"].to_pylist(), found, strict=True) if is_there}


def meet(sightings: Sightings, listing: dict[str, str]) -> None:
    for table in listing_of(listing, rows_per_table=1):
        is_one = is_shard(table["uri"][0].as_py())
        (sightings.meet_shards if is_one else sightings.meet_images)(table)


def test_what_was_not_met_has_vanished_or_is_stale() -> None:
    sightings = Sightings(Ledger.from_tables([table_of(ROWS)], SHARD_NAMES))
    assert len(sightings.vanished().keys) == len(sightings.stale().keys) == len(ROWS)
    same = dict.fromkeys(("same.jpg", "same.tar", "broken.tar", "new.jpg"), "A")
    meet(sightings, same | dict.fromkeys(("changed.jpg", "changed.tar"), "B"))
    gone = {"gone.jpg", "gone.tar#1.jpg"}
    assert names(sightings.vanished()) == gone
    assert names(sightings.stale()) == gone | {
        "changed.jpg",
        "changed.tar#1.jpg",
        "same.tar#2.jpg",
    }


def test_two_listings_of_one_ledger_know_nothing_of_each_other() -> None:
    ledger = Ledger.from_tables([table_of(ROWS)], SHARD_NAMES)
    first, second = Sightings(ledger), Sightings(ledger)
    meet(first, {"same.jpg": "A"})
    assert len(second.vanished().keys) == len(ROWS)
    np.testing.assert_array_equal(second.vanished().keys, ledger.uris)


def test_nothing_vanishes_from_an_empty_ledger() -> None:
    sightings = Sightings(Ledger.from_tables([], SHARD_NAMES))
    meet(sightings, {"a.jpg": "A", "a.tar": "A"})
    assert len(sightings.vanished().keys) == len(sightings.stale().keys) == 0


def members(count: int, version: str, *more: Row) -> list[Row]:
    return [*(Row(f"s.tar#{n}.jpg", version, None, "s.tar") for n in range(count)), *more]


DAMAGE = Row("s.tar", "B", "shard_truncated", "s.tar")
EMPTY = Row("s.tar", "B", "shard_empty", "s.tar")


@pytest.mark.parametrize(
    ("runs", "gone"),
    [
        ([members(3, "A", DAMAGE), members(4, "B")], {"s.tar"}),
        ([members(3, "B", DAMAGE), members(4, "B")], {"s.tar"}),
        ([members(4, "A"), members(2, "B")], {"s.tar#2.jpg", "s.tar#3.jpg"}),
        ([members(4, "A"), members(2, "B", DAMAGE)], set()),
        ([members(4, "A"), members(2, "B", DAMAGE), members(3, "C")], {"s.tar", "s.tar#3.jpg"}),
        ([members(2, "A"), [EMPTY]], {"s.tar#0.jpg", "s.tar#1.jpg"}),
        ([members(2, "A"), [EMPTY], members(2, "A")], {"s.tar"}),
        ([members(4, "A"), members(2, "B"), members(4, "C")], set()),
    ],
    ids=["repaired", "tried again", "smaller", "broken", "broken and repaired", "emptied",
         "filled again", "grown again"],
)  # fmt: skip
def test_members_that_their_shard_has_no_longer(runs: list[list[Row]], gone: set[str]) -> None:
    """As the run finds that reads the shard, and as every later one knows."""

    def found(past: list[list[Row]], now: Ledger | None) -> set[str]:
        ledger = Ledger.from_runs(([table_of(rows)] for rows in reversed(past)), SHARD_NAMES)
        sightings = Sightings(ledger)
        meet(sightings, {"s.tar": "any"})
        index = sightings.vanished(now)
        uris = table_of(members(4, "", DAMAGE))["uri"]
        assert len(index.keys) == index.find(hash_strings(uris))[0].sum()
        return {uri for uri, is_gone in zip(uris.to_pylist(), index.find(hash_strings(uris))[0],
                                            strict=True) if is_gone}  # fmt: skip

    assert found(runs[:-1], Ledger.from_tables([table_of(runs[-1])], SHARD_NAMES)) == gone
    assert found(runs, None) == gone
