"""Which images are worth a look, by brute force."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from pipeline.monitoring.review.queue import lot, top_margin
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of
from tests.support.outputs.drifting import CLASSES, softmax, vectors


def queue_of(store: Store, run: int = 0, reason: str | None = None) -> list[dict[str, Any]]:
    """The rows of a run's queue, all or those with a reason."""
    rows = read_table(store, f"runs/{run:08d}/review.parquet").to_pylist()
    return [row for row in rows if reason in (None, row["reason"])]


def margins(table: pa.Table) -> dict[str, float]:
    """uri to margin, by brute force."""
    found = {}
    for row in table.to_pylist():
        if row["topk_scores"]:
            best, second = sorted(row["topk_scores"], reverse=True)[:2]
            found[row["uri"]] = best - second
    return found


class TestMargin:
    def column(self, *rows: list[float]) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(rows, pa.list_(pa.float32()))])

    def test_best_minus_second(self) -> None:
        scores = self.column([0.5, 0.375, 0.125], [0.75, 0.0], [0.25, 0.25, 0.25])
        assert top_margin(scores, "softmax").tolist() == [0.125, 0.75, 0.0]

    @pytest.mark.parametrize(
        ("kind", "expected"), [("sigmoid", [0.5, 0.5]), ("softmax", [0.75, 0.25])]
    )
    def test_one_score_alone(self, kind: str, expected: list[float]) -> None:
        assert top_margin(self.column([0.75], [0.25]), kind).tolist() == expected

    def test_a_logit_alone_is_not_ranked(self) -> None:
        ranked = np.isfinite(top_margin(self.column([7.0], [7.0, 5.0]), "logits"))
        assert ranked.tolist() == [False, True]


class TestQueue:
    def test_the_queue_holds_the_smallest_margins(self, local_store: Store) -> None:
        rows = rows_of(softmax(0, 500), CLASSES, failures=["corrupt"] * 5)
        close_run(local_store, rows, CLASSES, rows_per_part=60, review=17)
        queue = queue_of(local_store, reason="uncertain")
        expected = sorted((margin, uri) for uri, margin in margins(rows).items())[:17]
        assert [row["uri"] for row in queue] == [uri for _, uri in expected]
        assert [row["value"] for row in queue] == pytest.approx([m for m, _ in expected])
        assert {row["reason"] for row in queue_of(local_store)} == {"uncertain", "random"}
        of_row = {row["uri"]: row for row in rows.to_pylist()}
        for name in ("label", "score", "topk_labels", "topk_scores"):
            assert all(row[name] == of_row[row["uri"]][name] for row in queue_of(local_store))

    def test_the_queue_holds_the_images_furthest_from_earlier_ones(
        self, local_store: Store
    ) -> None:
        earlier, now = vectors(0, 400), vectors(1, 300)
        now[[7, 70]] += 40 * earlier.std(axis=0)
        now[170] -= 9 * earlier.std(axis=0)
        identity = replace(IDENTITY, embedding="fixed_size_list<float>[16]")
        for embeddings in (earlier, now):
            rows = rows_of(softmax(2, len(embeddings)), CLASSES, embeddings=embeddings)
            close_run(local_store, rows, CLASSES, identity=identity, review=8)
        strange = queue_of(local_store, 1, "unlike")
        distances = np.sqrt((((now - earlier.mean(axis=0)) / earlier.std(axis=0)) ** 2).mean(1))
        expected = np.argsort(-distances)[:8]
        assert [row["uri"] for row in strange] == [
            f"s3://bucket/image{i:06d}.jpg" for i in expected
        ]
        assert [row["value"] for row in strange] == pytest.approx(distances[expected], rel=1e-4)
        assert strange[2]["uri"] == "s3://bucket/image000170.jpg"

    def test_no_queue_when_none_is_wanted(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 50), CLASSES), CLASSES, review=0)
        assert not local_store.exists("runs/00000000/review.parquet")

    def test_ties_are_resolved_by_name_whatever_the_order(self, tmp_path: Path) -> None:
        scores = np.tile(np.array([[0.5, 0.5, 0, 0, 0, 0, 0, 0]], np.float32), (40, 1))
        rows = rows_of(scores, CLASSES)
        for name, table in (("a", rows), ("b", rows.take(list(range(39, -1, -1))))):
            store = Store(str(tmp_path / name))
            close_run(store, table, CLASSES, rows_per_part=7, review=5)
            queue = queue_of(store, reason="uncertain")
            assert [row["uri"] for row in queue] == sorted(rows["uri"].to_pylist())[:5]

    def test_the_images_nearest_to_the_threshold_of_a_class(self, local_store: Store) -> None:
        limits = [0.1 * (1 + number) for number in range(len(CLASSES))]
        identity = replace(IDENTITY, scores="sigmoid", thresholds=tuple(limits))
        rows = rows_of(softmax(3, 200), CLASSES, top_k=3, failures=["corrupt"])
        close_run(local_store, rows, CLASSES, identity=identity, review=9)
        gaps = {
            row["uri"]: min(abs(s - limits[i]) for i, s in zip(*both, strict=True))
            for row in rows.to_pylist() if all(both := (row["topk_ids"], row["topk_scores"]))
        }  # fmt: skip
        near = queue_of(local_store, reason="threshold")
        assert [row["uri"] for row in near] == sorted(gaps, key=lambda uri: gaps[uri])[:9]
        assert [row["value"] for row in near] == pytest.approx(sorted(gaps.values())[:9])


class TestRandomSample:
    def test_it_is_the_same_whatever_the_order_and_the_model(self, tmp_path: Path) -> None:
        samples = []
        for seed in (0, 1):
            store = Store(str(tmp_path / str(seed)))
            rows = rows_of(softmax(seed, 300), CLASSES)
            shuffled = rows.take(np.random.default_rng(seed).permutation(300))
            close_run(store, shuffled, CLASSES, rows_per_part=40 + seed, review=20)
            samples.append([row["uri"] for row in queue_of(store, reason="random")])
        assert samples[0] == samples[1]
        assert len(set(samples[0])) == 20

    def test_every_image_is_as_likely_as_any_other(self) -> None:
        """Names as cameras give them; chi-squared over 50 bins, and as many from each directory."""
        names = [f"s3://b/{n // 1000:02d}/IMG_{n:05d}.jpg" for n in range(20_000)]
        drawn = lot(pa.chunked_array([names]))
        assert scipy.stats.chisquare(np.histogram(drawn, 50, (0, 1))[0]).pvalue > 0.001
        directories = np.argsort(drawn)[:4000] // 1000
        assert scipy.stats.chisquare(np.bincount(directories, minlength=20)).pvalue > 0.001

    def test_a_run_without_labels_has_none(self, local_store: Store) -> None:
        rows = rows_of(softmax(0, 50), CLASSES).drop_columns(["label", "topk_scores"])
        close_run(local_store, rows, CLASSES, identity=replace(IDENTITY, scores=None))
        assert not local_store.exists("runs/00000000/review.parquet")
