"""Rows whose label is what people said, again and again as they say more."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.corrections import Correction, write_corrections
from pipeline.contract.errors import UsageError
from pipeline.output.corrections.collected import add, files, standing
from pipeline.output.ledger.history import History
from pipeline.runs.relabel.job import relabel
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import CLASSES, MAP, identity, softmax, spec

NOW = datetime(2026, 11, 27, tzinfo=UTC)
URIS = [f"s3://bucket/image{number:06d}.jpg" for number in range(20)]
FAILED = "s3://bucket/image-bad000000.jpg"
MODELS = ("topk_ids", "topk_labels", "topk_scores", "sha256", "status")


@pytest.fixture
def labelled(source: Store) -> Store:
    close_run(source, rows_of(softmax(0, 20), CLASSES, failures=["corrupt"]), CLASSES)
    return source


def said(uri: str, label: str = "", **others: Any) -> Correction:
    return Correction(uri=uri, label=label, **{"verdict": "label" if label else "none"} | others)


def live(store: Store) -> dict[str, dict[str, Any]]:
    rows = LiveRows.of(History.load(store)).batches(10)
    return {row["uri"]: row for table in rows for row in table.to_pylist()}


def corrections_of(store: Store) -> dict[str, Any]:
    return {"corrections": (store.locate("corrections"),)}


def test_labels_are_what_people_said(labelled: Store, output: Store) -> None:
    some = [
        said(URIS[0], "car"),
        said(URIS[1], "yeti"),
        said(URIS[2]),
        said(URIS[3], verdict="bad_picture"),
        said(FAILED, "cat"),
    ]
    add(labelled, some, NOW)
    relabel(spec(labelled, output, **corrections_of(labelled)))
    before, after = live(labelled), live(output)
    assert after.keys() == before.keys()
    for uri, row in after.items():
        assert [row[name] for name in MODELS] == [before[uri][name] for name in MODELS]
    told = {u: (r["label"], r["label_id"], r["correction"]) for u, r in after.items()}
    assert told[URIS[0]] == ("car", CLASSES.index("car"), "label")
    assert told[URIS[1]] == ("yeti", None, "label")
    assert told[URIS[2]] == (None, None, "none")
    assert told[URIS[3]] == (None, None, "bad_picture")
    assert told[FAILED] == (None, None, "label")
    assert told[URIS[4]] == (before[URIS[4]]["label"], before[URIS[4]]["label_id"], None)
    stored = dict(zip(after[URIS[0]]["topk_labels"], after[URIS[0]]["topk_scores"], strict=True))
    assert after[URIS[0]]["score"] == stored.get("car")
    assert [after[uri]["score"] for uri in URIS[1:4]] == [None] * 3
    assert standing(output) == standing(labelled), "they travel along"


def test_only_what_people_said_anew_is_written_again(labelled: Store, output: Store) -> None:
    add(labelled, [said(URIS[0], "car"), said(URIS[1], "fox"), said(FAILED, "cat")], NOW)
    asked = spec(labelled, output, **corrections_of(labelled))
    assert relabel(asked).counts.computed == 21
    assert relabel(asked).counts.computed == 0
    later = "2026-11-27T01:00:00.000Z"
    anew = [said(URIS[1], "dog", when=later), said(URIS[2], "wolf"), said(URIS[0], "car")]
    add(labelled, anew, NOW)
    assert relabel(asked).counts.computed == 2
    assert [live(output)[uri]["label"] for uri in URIS[:3]] == ["car", "dog", "wolf"]
    labelled.remove(files(labelled)[0])
    labelled.remove(files(labelled)[0])
    output.remove("corrections")
    add(labelled, [said(URIS[5], "ox")], NOW)
    assert relabel(asked).counts.computed == 5, "three are the model's again, and the failed one"
    assert {row["correction"] for uri, row in live(output).items() if uri != URIS[5]} == {None}


def test_with_new_names(labelled: Store, output: Store, tmp_path: Path) -> None:
    """Old names or new ones, as people knew them; those that travel along are renamed."""
    add(labelled, [said(URIS[0], "wolf"), said(URIS[1], "vehicle")], NOW)
    given = tmp_path / "c.csv"
    given.write_bytes(write_corrections([said(URIS[0], "wolf"), said(URIS[1], "vehicle")]))
    relabel(spec(labelled, output, label_map=MAP, corrections=(str(given),)))
    assert [live(output)[uri]["label"] for uri in URIS[:2]] == ["dog", "vehicle"]
    assert [standing(output)[uri].label for uri in URIS[:2]] == ["dog", "vehicle"]


def test_scores_overrule_what_was_corrected_before(
    labelled: Store, output: Store, tmp_path: Path
) -> None:
    """A relabelling starts from what the model said, and must not call it a person's word."""
    add(labelled, [said(URIS[0], "yeti")], NOW)
    relabel(spec(labelled, output, **corrections_of(labelled)))
    third = Store(str(tmp_path / "third"))
    relabel(spec(output, third, top_k=2))
    assert live(third)[URIS[0]]["label"] == live(labelled)[URIS[0]]["label"]
    assert "correction" not in live(third)[URIS[0]]
    fourth = Store(str(tmp_path / "fourth"))
    relabel(spec(third, fourth, **corrections_of(third)))
    assert live(fourth)[URIS[0]]["label"] == "yeti"


def test_what_is_refused(labelled: Store, output: Store, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(write_corrections([said("/x.jpg", "cat"), said("/y.jpg"), said(URIS[0])]))
    with pytest.raises(UsageError, match=r"2 of 3 images in relabel\.corrections are not in .*/x"):
        relabel(spec(labelled, output, corrections=(str(path),)))
    with pytest.raises(UsageError, match=r"nowhere does not exist; check relabel\.corrections"):
        relabel(spec(labelled, output, corrections=(str(tmp_path / "nowhere"),)))
    with pytest.raises(UsageError, match=r"relabel\.model excludes relabel\.corrections"):
        spec(labelled, output, model="m", corrections=("c.csv",))
    with pytest.raises(UsageError, match=r"one relabel\.corrections is empty"):
        spec(labelled, output, corrections=("",))
    kept = Store(str(tmp_path / "kept"))
    table = rows_of(softmax(0, 2), CLASSES)
    table = table.append_column("correction", table["uri"])
    close_run(kept, table, CLASSES, identity=replace(identity(), kept={"correction": "string"}))
    with pytest.raises(UsageError, match="has a column correction from its input"):
        relabel(spec(kept, output, corrections=(str(path),)))
    assert not output.list("data")
