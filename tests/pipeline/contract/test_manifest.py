"""The files that closed runs leave behind: those that were written until now are read for ever."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import DamagedFileError, ExitCode, UsageError
from pipeline.contract.manifest import (
    Change,
    Counts,
    DataFile,
    DeferredCounts,
    Drift,
    Latest,
    Manifest,
    RowSummary,
    Timings,
)
from pipeline.output.identity import check_identity

WRITTEN = Path(__file__).parent / "written"
"""By runs of version 0.1.0, before manifests had types: the first run of an output, one that
drifted, one in its third attempt with failures and vanished images, one that the deadline cut
short, and a relabelling."""

MANIFESTS = ("first", "drift", "failures", "deferred", "relabel")


def written(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((WRITTEN / f"{name}.json").read_bytes())
    return content


def manifest(name: str) -> Manifest:
    return Manifest.from_json((WRITTEN / f"{name}.json").read_bytes(), name)


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_was_written_is_written_again(name: str) -> None:
    content = written(name)
    again = manifest(name).to_dict()
    assert again == content
    assert json.loads(json.dumps(again)) == content
    assert set(map(type, again.values())) <= {str, int, dict, list}, "plain JSON types"


@pytest.mark.parametrize("name", [name for name in MANIFESTS if name != "relabel"])
def test_byte_by_byte(name: str) -> None:
    """A relabelling had its timings last; now all manifests have them before the versions."""
    text = json.dumps(manifest(name).to_dict(), indent=2, ensure_ascii=False) + "\n"
    assert text.encode() == (WRITTEN / f"{name}.json").read_bytes()


def test_latest() -> None:
    latest = Latest.from_dict(written("latest"))
    assert latest.counts == manifest("drift").counts
    assert latest.to_dict() == written("latest")


def test_what_code_reads_of_a_run() -> None:
    drifted = manifest("drift")
    assert drifted.counts == Counts(listed=260, ok=120, failed=30, skipped=110)
    assert (drifted.counts.computed, drifted.counts.failure_rate) == (150, 0.2)
    assert drifted.file_names == [f"data/run={drifted.run_id}/part-00000.parquet"]
    assert drifted.files == (DataFile(drifted.file_names[0], 150),)
    assert (drifted.inputs, drifted.is_full) == (("/photos",), False)
    assert drifted.timings.execute == drifted.timings.phases["execute"] == 25.306
    assert drifted.timings.inferred == 150
    assert drifted.timings.images_per_second == pytest.approx(150 / 25.306)
    assert drifted.drift.runs == (manifest("first").run_id,)
    assert drifted.drift.alarms[0] == "failures: Cohen's h 0.927, threshold 0.427"
    assert len(drifted.drift.alarms) == 3
    assert drifted.summary.embedding is not None
    assert len(drifted.summary.embedding.mean) == len(drifted.summary.embedding.variance) == 32
    assert drifted.model.fingerprint == drifted.identity.fingerprint == "afbdda11c7bac3d6"

    third = manifest("failures")
    assert third.attempts == 3
    assert third.vanished == ("/photos/a/0003.jpg", "/photos/a/0004.jpg")
    cut = manifest("deferred")
    assert cut.deferred == DeferredCounts(images=3, shards=1)
    assert cut.deferred
    assert not third.deferred
    assert (cut.files, cut.timings.images_per_second) == ((), 0)


def test_what_code_reads_of_a_relabelling() -> None:
    relabelled = manifest("relabel")
    assert relabelled.inputs == ()
    assert relabelled.vanished is None
    assert relabelled.source_runs is not None
    assert relabelled.source_runs[-1] == manifest("first").run_id
    assert relabelled.timings.execute == relabelled.timings.images_per_second == 0
    assert relabelled.plan["unsure"] == {"label": 235, "labels": 235}


def test_a_full_run() -> None:
    content = written("first")
    content["spec"]["policy"]["full"] = True
    assert Manifest.from_dict(content).is_full


def test_an_older_one_says_less() -> None:
    """The first manifests had neither deadline nor summary nor drift."""
    content = written("first")
    for name in ("deferred", "vanished", "summary", "drift"):
        del content[name]
    old = Manifest.from_dict(content)
    assert (old.deferred, old.vanished) == (DeferredCounts(), None)
    assert (old.summary, old.drift) == (RowSummary(), Drift())
    assert not old.drift.alarms


def test_a_newer_one_says_more() -> None:
    """What this version does not know it passes over; nobody writes a manifest that was read."""
    content = written("first")
    newer = json.loads(json.dumps(content)) | {"colour": "blue"}
    newer["counts"]["doubtful"] = 3
    newer["files"][0]["sha256"] = "0"
    assert Manifest.from_dict(newer).to_dict() == content


def test_what_must_agree_is_never_passed_over() -> None:
    """A version that knows less about identities refuses what it does not know."""
    content = written("first")
    content["identity"]["tiles"] = "2x2"
    newer = Manifest.from_dict(content).identity
    assert newer.others == {"tiles": "2x2"}
    assert newer.to_dict() == content["identity"]
    with pytest.raises(UsageError, match="tiles: 2x2 -> None"):
        check_identity(manifest("first").identity, newer, "the closed run 1", "advice")


def test_whole_numbers_are_numbers() -> None:
    timings = Timings.from_dict({"execute": 2, "stage_inferred": 50})
    assert (timings.images_per_second, timings.to_dict()["execute"]) == (25, 2)


def test_an_alarm_is_what_exceeds_its_threshold() -> None:
    change = Change("failures", None, 0.1, 0.2, "Cohen's h", 0.3, 0.25)
    assert change.alarm
    assert change.to_dict()["alarm"] is True
    assert not Change("failures", None, 0.1, 0.2, "Cohen's h", 0.25, 0.25).alarm
    assert not Change("label shares", "cat", 0.1, 0.9, "index", 7.0).alarm


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"counts": {"listed": 1, "ok": "many"}}, 'counts.ok is "many", not a whole number'),
        ({"counts": {"ok": True}}, "counts.ok is true, not a whole number"),
        ({"counts": {"ok": 1.5}}, "counts.ok is 1.5, not a whole number"),
        ({"counts": [1]}, "counts is [1], not an object"),
        ({"files": "a.parquet"}, 'files is "a.parquet", not an array'),
        ({"files": [{"name": "a"}, {"rows": 3}]}, "files[1].name is missing"),
        ({"labels": {"cat": None}}, "labels.cat is null, not a whole number"),
        ({"timings": {"execute": "long"}}, 'timings.execute is "long", not a number'),
        ({"spec": {"policy": {"full": "no"}}}, 'spec.policy.full is "no", not true or false'),
        ({"spec": {"inputs": {"uris": [7]}}}, "spec.inputs.uris[0] is 7, not a string"),
        ({"identity": None}, "identity is null, not an object"),
        ({"run_id": 7}, "run_id is 7, not a string"),
    ],
)
def test_a_damaged_one_is_told_by_name_and_place(change: dict[str, Any], complaint: str) -> None:
    data = json.dumps(written("first") | change).encode()
    with pytest.raises(DamagedFileError) as caught:
        Manifest.from_json(data, "s3://b/out/runs/1/manifest.json")
    assert caught.value.exit_code is ExitCode.RUN_FAILED
    assert str(caught.value) == (
        f"s3://b/out/runs/1/manifest.json is damaged: {complaint}; "
        "restore it, or choose another output.uri"
    )


@pytest.mark.parametrize("data", [b"", b'{"run_id": ', b"\xff\xfe", b"[]", b"null"])
def test_what_is_no_manifest_at_all(data: bytes) -> None:
    with pytest.raises(DamagedFileError, match=r"^name is damaged: .*; restore it"):
        Manifest.from_json(data, "name")


@pytest.mark.parametrize("name", ["run_id", "counts", "files", "identity", "spec"])
def test_without_these_it_is_none(name: str) -> None:
    content = written("first")
    del content[name]
    with pytest.raises(DamagedFileError, match=f"{name} is missing"):
        Manifest.from_json(json.dumps(content).encode(), "name")
