"""One run in place of many: what was known stays known, and readers see all of it or nothing."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.contract import layout
from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.manifest import Manifest
from pipeline.contract.schema import vanished_rows
from pipeline.contract.spec import CompactSpec
from pipeline.output import lance
from pipeline.output.ledger.hashes import HashIndex, hash_strings
from pipeline.output.ledger.history import History
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.runs.compact.job import compact
from pipeline.runs.relabel.job import relabel
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.inputs.world import SHARD_NAMES, Row, table_of
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.compacting import combined, nights, present, rows_now
from tests.support.outputs.relabelling import CLASSES, MAP, identity, softmax, spec
from tests.support.processes.killed import KilledError, killed_after


def check_same(before: Ledger, after: Ledger) -> None:
    """The next night finds the same images and shards, in the same versions."""
    for ours, theirs in ((before.images, after.images), (before.shards, after.shards)):
        assert np.array_equal(ours.index.keys, theirs.index.keys)
        assert np.array_equal(ours.versions, theirs.versions)
        assert np.array_equal(ours.rows, theirs.rows)
    assert sorted(before.codes) == sorted(after.codes)
    order = [after.codes.index(code) for code in before.codes]
    failures = (before.images.failures[before.images.slots], after.images.failures)
    assert np.array_equal(failures[0], failures[1][after.images.slots][:, order])


def ledger(store: Store) -> Ledger:
    return History.load(store).ledger(SHARD_NAMES)


def test_the_newest_row_of_every_image_is_in_one_run(store: Store) -> None:
    nights(store, 3 if store.is_local else 1)
    before, known = rows_now(store), ledger(store)
    done = combined(store)
    (run,) = History.load(store).runs
    assert done.manifest == run
    (name,) = done.to_dict()["files"]
    table = read_table(store, name)
    assert table["uri"].to_pylist() == sorted(before)
    assert rows_now(store) == before
    assert len(present(before)) == run.counts.listed == run.counts.ok + run.counts.failed
    check_same(known, ledger(store))
    assert store.read_json(layout.classes_file(run.run_id)) == CLASSES
    assert not store.list("_open")


def test_vanished_ones_are_left_out_on_request(local_store: Store) -> None:
    nights(local_store)
    before, known = rows_now(local_store), ledger(local_store)
    combined(local_store, drop_vanished=True)
    assert rows_now(local_store) == present(before) != before
    check_same(known, ledger(local_store))


def test_what_is_in_one_run_is_left_alone(local_store: Store) -> None:
    nights(local_store, 1)
    assert combined(local_store).manifest is not None
    again = combined(local_store)
    assert again.manifest is None
    assert again.to_dict()["rows"] == 0
    assert combined(local_store, drop_vanished=True).manifest is not None
    assert combined(local_store, drop_vanished=True).manifest is None


def test_the_next_night_joins_it(local_store: Store) -> None:
    nights(local_store)
    before = rows_now(local_store)
    combined(local_store)
    new = rows_of(softmax(7, 3), CLASSES)
    close_run(local_store, new, CLASSES)
    after = rows_now(local_store)
    assert after == before | {row["uri"]: row for row in new.to_pylist()}
    check = ledger(local_store)
    combined(local_store)
    assert rows_now(local_store) == after
    check_same(check, ledger(local_store))


def test_a_member_that_its_shard_lost_does_not_come_back(local_store: Store) -> None:
    """The run that read the shard again was stopped before it said so; rows of another version than
    the shard's would make the next night read it once more."""
    first = [Row("s3://b/x.tar#a", "1"), Row("s3://b/x.tar#b", "1"), Row("s3://b/y.jpg", "1")]
    plain = identity(scores=None, top_k=None)
    close_run(local_store, table_of(first), [], identity=plain)
    close_run(local_store, table_of([Row("s3://b/x.tar#b", "2")]), [], identity=plain)
    before = ledger(local_store)
    assert before.superseded.sum() == 1
    combined(local_store)
    after = ledger(local_store)
    assert np.array_equal(after.shards.versions, before.shards.versions)
    assert np.array_equal(after.shards.rows, before.shards.rows)
    assert set(present(rows_now(local_store))) == {"s3://b/x.tar#b", "s3://b/y.jpg"}
    assert rows_now(local_store)["s3://b/x.tar#a"]["status"] == "vanished"


HASHING = (
    "output.ledger.hashes", "output.ledger.indexed", "output.ledger.rolling", "runs.compact.job",
    "output.merging.file", "output.merging.tally", "runs.relabel.live_rows",
)  # fmt: skip


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pairs of URIs have the same hash, each in another way."""

    def collide(column: pa.ChunkedArray) -> Any:
        return hash_strings(pc.replace_substring_regex(column, "-twin", ""))

    for module in HASHING:
        monkeypatch.setattr(f"pipeline.{module}.hash_strings", collide)


@pytest.mark.usefixtures("colliding")
def test_two_shards_whose_hashes_are_equal_keep_their_rows(local_store: Store) -> None:
    for names in (["x.tar#a", "y.tar#a", "y.tar#b"], ["x-twin.tar#c", "y.tar#b"]):
        rows = [Row(f"s3://b/{name}", str(len(names))) for name in names]
        close_run(local_store, table_of(rows), [], identity=identity(scores=None, top_k=None))
    combined(local_store)
    kept = {uri.removeprefix("s3://b/") for uri in present(rows_now(local_store))}
    assert kept == {"x.tar#a", "x-twin.tar#c", "y.tar#b"}


@pytest.mark.usefixtures("colliding")
@pytest.mark.parametrize("uris_at_once", [1, 2**20])
def test_two_images_whose_hashes_are_equal_keep_their_rows(
    uris_at_once: int, local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runs.relabel.live_rows._URIS_AT_ONCE", uris_at_once)
    plain = identity(scores=None, top_k=None)
    first = ("a.jpg", "b.jpg", "b-twin.jpg", "x.tar#a", "x.tar#b", "c.jpg")
    then = ("a-twin.jpg", "b.jpg", "x.tar#b", "x.tar#a-twin")
    for version, names in (("1", first), ("2", then)):
        rows = [Row(f"s3://b/{name}", version) for name in names]
        close_run(local_store, table_of(rows), [], identity=plain)
    gone = vanished_rows(["s3://b/c-twin.jpg"], table_of([]).schema)
    close_run(local_store, gone, [], identity=plain, expected=0)
    before = rows_now(local_store)
    assert len(before) == 9
    combined(local_store)
    assert rows_now(local_store) == before
    assert len(History.load(local_store).runs) == 1


def test_what_vanishes_after_it_is_of_the_same_inputs(local_store: Store) -> None:
    """A list names images anywhere; what a run over the same list had, came from it."""
    nights(local_store, 1)
    for name in [name for name in local_store.list(layout.RUNS) if name.endswith("manifest.json")]:
        manifest = local_store.read_json(name)
        manifest["spec"]["inputs"] = {"uris": ["/lists/a.txt"]}
        local_store.write_json(name, manifest)
    local_store.remove(layout.HISTORY)
    combined(local_store)
    gone = HashIndex(np.unique(hash_strings(pa.chunked_array([["s3://bucket/image000003.jpg"]]))))
    history = History.load(local_store)
    assert history.vanished(gone, ["/lists/a.txt"]) == ["s3://bucket/image000003.jpg"]
    assert history.vanished(gone, ["/lists/b.txt"]) == []


def test_later_runs_are_compared_with_the_same_nights(local_store: Store) -> None:
    for seed in range(3):
        close_run(local_store, rows_of(softmax(seed, 120), CLASSES, prefix=f"{seed}"), CLASSES)
    other = Store(f"{local_store.uri}-other")
    shutil.copytree(local_store.path(), other.path())
    combined(local_store)
    tonight = rows_of(softmax(5, 150), CLASSES, prefix="tonight")
    drift = [close_run(store, tonight, CLASSES).drift for store in (other, local_store)]
    assert drift[0] == drift[1]
    assert len(drift[0].runs) == 3


def test_relabelling_reads_the_same_rows(local_store: Store, tmp_path: Path) -> None:
    output = Store(str(tmp_path / "relabelled"))
    nights(local_store)
    relabel(spec(local_store, output, label_map=MAP))
    combined(local_store)
    again = relabel(spec(local_store, output, label_map=MAP))
    assert (again.counts.ok, again.counts.failed) == (0, 0)
    assert again.counts.skipped == len(present(rows_now(local_store)))
    before = present(rows_now(output))
    combined(output)
    assert present(rows_now(output)) == before


class TestRefusals:
    def test_no_output(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="holds no closed run; name the output of an earlier"):
            compact(CompactSpec(output=str(tmp_path / "mistyped")))
        assert not (tmp_path / "mistyped").exists()

    def test_rows_of_several_models(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 5), CLASSES), CLASSES)
        rows = rows_of(softmax(1, 5), CLASSES)
        close_run(local_store, rows, CLASSES, identity=identity(fingerprint="other"))
        with pytest.raises(UsageError, match=r"fingerprint: f00d -> other.*with policy.full first"):
            combined(local_store)

    def test_an_unfinished_run_of_a_job(self, local_store: Store) -> None:
        nights(local_store, 1)
        OpenRun.begin(local_store, OpenRecord(inputs={"format": "auto"}))
        with pytest.raises(UsageError, match="unfinished run of another job"):
            combined(local_store)

    def test_a_file_that_is_gone(self, local_store: Store) -> None:
        nights(local_store, 1)
        before = rows_now(local_store)
        name = next(iter(local_store.list(layout.DATA)))
        data = local_store.read_bytes(name)
        local_store.remove(name)
        with pytest.raises((RunError, UsageError), match=name):
            combined(local_store)
        local_store.write_bytes(name, data)
        combined(local_store)
        assert rows_now(local_store) == before


def test_the_lance_dataset_has_its_rows_already(local_store: Store) -> None:
    """An index over the dataset would be lost with a new one."""
    nights(local_store, 1)
    lance.update("lance", local_store)
    before = dataset(local_store)
    combined(local_store)
    lance.update("lance", local_store)
    assert dataset(local_store).version == before.version
    for number in range(2):  # the second time, it lacks a night that was combined since
        close_run(local_store, rows_of(softmax(number, 3), CLASSES), CLASSES)
        if number:
            combined(local_store)
        lance.update("lance", local_store)
        found = dataset(local_store).to_table().to_pylist()
        assert {row["uri"]: row for row in found} == present(rows_now(local_store))


def dataset(store: Store) -> Any:
    from lance import dataset

    return dataset(store.locate(layout.LANCE))


SOME_STEPS = 12
"""There are at least as many."""
STEPS = random.Random(19).sample(range(SOME_STEPS), 4)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(STEPS, id="some"),
        pytest.param(range(1000), id="all", marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_readers_see_every_row(
    steps: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command, or a run, goes on."""
    original = Store(str(tmp_path / "original"))
    nights(original, 2)
    before = rows_now(original)
    whole = Store(str(tmp_path / "whole"))
    shutil.copytree(original.path(), whole.path())
    with killed_after(10**6, monkeypatch, whole) as done:
        combined(whole)
    assert len(done) >= SOME_STEPS
    for step in [step for step in steps if step < len(done)]:
        broken = Store(str(tmp_path / f"{step}"))
        shutil.copytree(original.path(), broken.path())
        with killed_after(step, monkeypatch, broken), pytest.raises(KilledError):
            combined(broken)
        assert rows_now(broken) == before, done[step]
        latest = broken.read_json(layout.LATEST)
        assert set(read_manifest(broken, latest["manifest"]).file_names) <= {*broken.list("data")}
        broken.remove(layout.LEASE)  # its holder is gone, though this process is not
        combined(broken)
        assert rows_now(broken) == before
        assert len(History.load(broken).runs) == 1
        assert OpenRun.find(broken) is None


def read_manifest(store: Store, name: str) -> Manifest:
    return Manifest.from_dict(json.loads(store.read_bytes(name)))
