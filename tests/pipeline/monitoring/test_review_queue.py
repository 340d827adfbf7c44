"""Which images are worth a look, by brute force."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.monitoring.review_queue import top_margin
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of
from tests.support.outputs.drifting import CLASSES, softmax, vectors


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
        queue = read_table(local_store, "runs/00000000/review.parquet").to_pylist()
        expected = sorted((margin, uri) for uri, margin in margins(rows).items())[:17]
        assert [row["uri"] for row in queue] == [uri for _, uri in expected]
        assert [row["value"] for row in queue] == pytest.approx([m for m, _ in expected])
        assert {row["reason"] for row in queue} == {"uncertain"}
        labels = dict(zip(rows["uri"].to_pylist(), rows["label"].to_pylist(), strict=True))
        assert all(row["label"] == labels[row["uri"]] for row in queue)

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
        queue = read_table(local_store, "runs/00000001/review.parquet").to_pylist()
        strange = [row for row in queue if row["reason"] == "unlike earlier"]
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
            queue = read_table(store, "runs/00000000/review.parquet")
            assert queue["uri"].to_pylist() == sorted(rows["uri"].to_pylist())[:5]
