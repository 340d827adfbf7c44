"""Closed runs beside earlier ones: which are compared, what is told and stored."""

import pickle
import re
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.contract.spec import PolicySpec
from pipeline.monitoring import drift
from pipeline.monitoring.comparison import RowsSeen
from pipeline.monitoring.review.queue import RANDOM, UNCERTAIN, UNLIKE, ReviewQueue
from pipeline.monitoring.summary import Moments
from pipeline.runs.result import RunResult
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of
from tests.support.outputs.drifting import CLASSES, softmax, vectors


class TestClosedRuns:
    def test_first_run_has_nothing_to_compare_with(self, store: Store) -> None:
        manifest = close_run(store, rows_of(softmax(0, 250), CLASSES), CLASSES)
        assert manifest.drift.runs == ()
        names = [name.rsplit("/", 1)[1] for name in store.list(f"runs/{manifest.run_id}")]
        assert names == [
            "classes.json", "manifest.json", "report.html", "review.html", "review.parquet",
        ]  # fmt: skip
        page = store.read_bytes(f"runs/{manifest.run_id}/report.html").decode()
        assert "What changed" not in page
        assert store.list("_open") == {}

    def test_a_change_is_found_told_and_stored(self, local_store: Store) -> None:
        for seed in range(3):
            close_run(local_store, rows_of(softmax(seed, 200), CLASSES), CLASSES)
        rows = rows_of(softmax(9, 300, favour=2), CLASSES, failures=["corrupt"] * 60)
        manifest = close_run(local_store, rows, CLASSES)
        assert manifest.drift.runs == ("00000002", "00000001", "00000000")
        assert manifest.drift.images_before == 600
        found = manifest.drift.alarms
        assert [line.split(":")[0] for line in found][:2] == ["failures", "failures (corrupt)"]
        assert any(line.startswith("label shares: population stability index") for line in found)
        table = read_table(local_store, "runs/00000003/changes.parquet")
        assert table.schema.remove_metadata().equals(drift.CHANGES)
        raised = table.filter(table["alarm"])
        assert raised.num_rows == len(found)
        share = next(
            row for row in table.to_pylist() if (row["what"], row["label"]) == (
                "label shares", "class 2",
            )
        )  # fmt: skip
        labels = [row["label"] for row in rows.to_pylist() if row["label"]]
        assert share["now"] == pytest.approx(labels.count("class 2") / 300)
        page = local_store.read_bytes("runs/00000003/report.html").decode()
        assert "What changed" in page
        assert "population stability index" in page
        assert "To review: uncertain (10 of 50" in page

    def test_a_change_ends_in_exit_code_3_only_when_asked(self, local_store: Store) -> None:
        for seed, favour in ((0, None), (1, None), (2, 3)):
            manifest = close_run(
                local_store, rows_of(softmax(seed, 300, favour=favour), CLASSES), CLASSES
            )
            strict = RunResult(local_store, manifest, PolicySpec(fail_on_drift=True))
            assert RunResult(local_store, manifest, PolicySpec()).exit_code == 0
            assert strict.exit_code == (3 if favour else 0)
        assert strict.complaint is not None
        statistic = r"label shares: population stability index \d\.\d+, threshold 0\.25"
        assert re.search(statistic, strict.complaint)

    def test_small_night_says_that_it_is_too_small(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 400), CLASSES), CLASSES)
        manifest = close_run(local_store, rows_of(softmax(1, 50, favour=1), CLASSES), CLASSES)
        assert not manifest.drift.alarms
        page = local_store.read_bytes("runs/00000001/report.html").decode()
        assert "50 images, compared with 400 of the last 1 runs: too few to tell" in page
        assert not local_store.exists("runs/00000001/changes.parquet")

    def test_compares_with_a_week_of_runs_of_the_same_model(self, local_store: Store) -> None:
        other = replace(IDENTITY, fingerprint="beef")
        for number in range(10):
            identity = other if number == 5 else IDENTITY
            size = 20 if number == 7 else 120
            rows = rows_of(softmax(number, size), CLASSES)
            close_run(local_store, rows, CLASSES, identity=identity)
        manifest = close_run(local_store, rows_of(softmax(99, 150), CLASSES), CLASSES)
        assert manifest.drift.runs == tuple(f"{n:08d}" for n in (9, 8, 6, 4, 3, 2, 1))


@pytest.mark.parametrize("cuts", [(0,), (1, 700), (250, 500, 750)])
def test_rows_seen_in_pieces_are_those_seen_at_once(cuts: tuple[int, ...]) -> None:
    embeddings = vectors(1, 1000)
    rows = rows_of(softmax(0, 1000), CLASSES, embeddings=embeddings)
    nothing = RowsSeen(ReviewQueue(20, "softmax", Moments.of(vectors(0, 300))))
    whole, total = deepcopy(nothing), deepcopy(nothing)
    whole.add(rows)
    for start, stop in pairwise((0, *cuts, 1000)):
        piece = deepcopy(nothing)
        piece.add(rows.slice(start, stop - start))
        total.include(pickle.loads(pickle.dumps(piece)))
    assert total.queue.table().equals(whole.queue.table())
    assert set(total.queue.kept) == {UNCERTAIN, UNLIKE, RANDOM}
    assert total.now.scores == whole.now.scores
    assert total.now.embedding is not None
    exact = embeddings.astype(np.float64)
    np.testing.assert_allclose(total.now.embedding.mean, exact.mean(axis=0))
    np.testing.assert_allclose(total.now.embedding.variance, exact.var(axis=0))
