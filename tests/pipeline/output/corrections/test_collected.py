"""``OUT/corrections/``: added to by anyone at any time, on disks and in buckets."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.contract.corrections import COLUMNS, Correction
from pipeline.contract.errors import DamagedFileError, UsageError
from pipeline.output.corrections.collected import add, carry_over, files, load, standing
from pipeline.storage.store import Store

NOW = datetime(2026, 11, 27, 4, 5, 6, 789_000, tzinfo=UTC)
CAT = Correction(uri="s3://b/a.jpg", label="cat", who="Ann", when="2026-11-27T01:00:00.000Z")
DOG = replace(CAT, label="dog", when="2026-11-27T02:00:00.000Z", who="Bob")
UNDATED = Correction(uri="s3://b/b.jpg", label="cow")


def test_what_is_added_stands_there(store: Store) -> None:
    added = add(store, [CAT, UNDATED], NOW)
    assert added.is_new
    assert added.name.startswith("corrections/20261127T040506Z-")
    dated = replace(UNDATED, when="2026-11-27T04:05:06.789Z")
    assert load(store) == [CAT, dated]
    assert add(store, [DOG], NOW) != added
    assert standing(store) == {CAT.uri: DOG, UNDATED.uri: dated}


def test_the_same_file_twice_is_there_once(store: Store) -> None:
    first = add(store, [CAT, UNDATED], NOW)
    again = add(store, [CAT, UNDATED], NOW + timedelta(days=3))
    assert (again.name, again.is_new) == (first.name, False)
    assert list(store.list("corrections")) == files(store) == [first.name]


def test_two_people_at_once_lose_nothing(store: Store) -> None:
    some = [replace(CAT, uri=f"s3://b/{n}.jpg") for n in range(8)]
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda one: add(store, [one], NOW), some))
    assert standing(store) == {one.uri: one for one in some}


def test_nothing_is_no_correction(store: Store) -> None:
    with pytest.raises(UsageError, match="there is no correction in it"):
        add(store, [], NOW)
    assert not files(store)


def test_a_decision_of_the_future_could_never_be_overruled(store: Store) -> None:
    with pytest.raises(UsageError, match=r"s3://b/a\.jpg was corrected at 2999.* yet to come"):
        add(store, [replace(CAT, when="2999-01-01T00:00:00.000Z")], NOW)
    assert not files(store)
    assert add(store, [replace(CAT, when="2026-11-27T23:00:00.000Z")], NOW).is_new


def test_a_file_put_there_by_hand_counts(store: Store) -> None:
    store.write_bytes("corrections/mine.csv", b"uri,label\ns3://b/a.jpg,hen\ns3://b/c.jpg,ox\n")
    store.write_bytes("corrections/notes.txt", b"for Bob")
    store.write_bytes("corrections/.mine.csv.swp", b"an editor's")
    add(store, [CAT], NOW)
    found = standing(store)
    assert {uri: one.label for uri, one in found.items()} == {CAT.uri: "cat", "s3://b/c.jpg": "ox"}


@pytest.mark.parametrize("text", ["uri,label\na.jpg\n", 'uri,label\na.jpg,"ca', "\0"])
def test_a_damaged_file_is_named(store: Store, text: str) -> None:
    add(store, [CAT], NOW)
    store.write_bytes("corrections/half.csv", text.encode())
    told = r"corrections/half\.csv: line \d.*; repair the file, or take it away"
    with pytest.raises(DamagedFileError, match=told):
        load(store)


def test_an_output_without_any(store: Store) -> None:
    assert load(store) == []
    store.write_bytes("corrections/columns.csv", f"{','.join(COLUMNS)}\n".encode())
    assert load(store) == []


def test_another_output_takes_them_over(store: Store) -> None:
    source, target = Store(f"{store.uri}/old"), Store(f"{store.uri}/new")
    add(source, [replace(CAT, proposed="dog"), DOG], NOW)
    for _ in range(2):
        carry_over(source, target, {"cat": "pet"})
    assert files(target) == files(source)
    assert load(target) == [replace(CAT, label="pet", proposed="dog"), DOG]
    assert not add(target, [replace(CAT, proposed="dog"), DOG], NOW).is_new, "added there before"
