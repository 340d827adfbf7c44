"""Merged classes and new thresholds, against brute force, row by row."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contract.manifest import Counts
from pipeline.runs.relabel.job import relabel
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import (
    CLASSES,
    MAP,
    NEW,
    identity,
    rows,
    softmax,
    spec,
    vectors,
)


def merged(row: Mapping[str, Any], how: Any = sum) -> list[tuple[str, float]]:
    """New names and scores of a stored row, best first, by brute force."""
    scores = defaultdict(list)
    for label, score in zip(row["topk_labels"], row["topk_scores"], strict=True):
        scores[MAP.get(label, label)].append(score)
    return sorted(((n, how(s)) for n, s in scores.items()), key=lambda pair: -pair[1])


def check_labels(row: Mapping[str, Any], expected: list[tuple[str, float]]) -> None:
    assert row["topk_labels"] == [name for name, _ in expected]
    assert row["topk_scores"] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert row["topk_ids"] == [NEW.index(name) for name, _ in expected]
    assert (row["label"], row["label_id"]) == (row["topk_labels"][0], row["topk_ids"][0])
    assert row["score"] == row["topk_scores"][0]


class TestLabelMap:
    @pytest.mark.parametrize(("kind", "how"), [("softmax", sum), ("sigmoid", max), ("logits", max)])
    def test_against_brute_force(self, source: Store, output: Store, kind: str, how: Any) -> None:
        scores = softmax(0, 120) if kind == "softmax" else vectors(0, 120, len(CLASSES))
        if kind == "sigmoid":
            scores = torch.from_numpy(scores).sigmoid().numpy()
        table = rows_of(scores, CLASSES, top_k=4, failures=["corrupt", "timeout", "corrupt"])
        close_run(source, table, CLASSES, identity=identity(scores=kind, top_k=4))
        result = relabel(spec(source, output, label_map=MAP))
        before, after = rows(source), rows(output)
        assert before.keys() == after.keys()
        for uri, row in after.items():
            if row["status"] == "ok":
                check_labels(row, merged(before[uri], how))
            else:
                assert row == before[uri]
        assert result.counts == Counts(listed=123, ok=120, failed=3, skipped=0)
        assert result.manifest.failures == {"corrupt": 2, "timeout": 1}
        assert output.read_json(f"runs/{result.run_id}/classes.json") == NEW
        assert output.read_json("latest.json")["run_id"] == result.run_id
        assert output.exists(f"runs/{result.run_id}/report.html")
        assert not output.list("_open")

    def test_says_when_the_stored_scores_do_not_decide(self, source: Store, output: Store) -> None:
        """A row is unsure exactly if some full row with these top scores has another best."""
        full = softmax(3, 400)
        close_run(source, rows_of(full, CLASSES, top_k=2), CLASSES, identity=identity(top_k=2))
        result = relabel(spec(source, output, label_map=MAP))
        onehot = np.array([[MAP.get(c, c) == n for n in NEW] for c in CLASSES], float)
        truth = [NEW[i] for i in (full @ onehot).argmax(axis=1)]
        after = sorted(rows(output).items())
        wrong = sum(row["label"] != label for (_, row), label in zip(after, truth, strict=True))
        unsure = result.manifest.plan["unsure"]["label"]
        assert 0 < wrong <= unsure < 400

    def test_nothing_is_unsure_when_all_scores_are_stored(
        self, source: Store, output: Store
    ) -> None:
        close_run(source, rows_of(softmax(3, 100), CLASSES, top_k=6), CLASSES,
                  identity=identity(top_k=6))  # fmt: skip
        result = relabel(spec(source, output, label_map=MAP, thresholds=0.3))
        assert result.manifest.plan["unsure"] == {"label": 0, "labels": 0}

    def test_relabelling_twice_is_relabelling_by_both_maps(
        self, source: Store, output: Store, tmp_path: Path
    ) -> None:
        close_run(source, rows_of(softmax(0, 50), CLASSES, top_k=6), CLASSES,
                  identity=identity(top_k=6))  # fmt: skip
        relabel(spec(source, output, label_map={"lynx": "cat"}))
        third, direct = Store(str(tmp_path / "third")), Store(str(tmp_path / "direct"))
        relabel(spec(output, third, label_map={"cat": "animal", "fox": "animal"}))
        animals = dict.fromkeys(["cat", "lynx", "fox"], "animal")
        relabel(spec(source, direct, label_map=animals))
        chained, at_once = rows(third), rows(direct)
        for uri, row in chained.items():
            assert row["topk_labels"] == at_once[uri]["topk_labels"]
            assert row["topk_scores"] == pytest.approx(at_once[uri]["topk_scores"], rel=1e-5)


class TestThresholds:
    @pytest.mark.parametrize("thresholds", [0.2, {"dog": 0.1, "vehicle": 0.05, "*": 0.4}])
    def test_against_brute_force(
        self, source: Store, output: Store, thresholds: float | dict[str, float]
    ) -> None:
        table = rows_of(softmax(0, 150), CLASSES, top_k=6, failures=["corrupt"])
        close_run(source, table, CLASSES, identity=identity(top_k=6))
        relabel(spec(source, output, label_map=MAP, thresholds=thresholds))
        before = rows(source)
        lengths = set()
        for uri, row in rows(output).items():
            if row["status"] == "failed":
                assert row["labels"] is None
                continue
            expected = [
                name
                for name, score in merged(before[uri])
                if score >= (
                    thresholds if isinstance(thresholds, float)
                    else thresholds.get(name, thresholds["*"])
                )
            ]  # fmt: skip
            assert row["labels"] == expected
            lengths.add(len(expected))
            check_labels(row, merged(before[uri]))
        assert len(lengths) > 1

    def test_says_when_a_class_that_is_not_stored_might_reach(
        self, source: Store, output: Store
    ) -> None:
        full = softmax(5, 300)
        close_run(source, rows_of(full, CLASSES, top_k=2), CLASSES, identity=identity(top_k=2))
        result = relabel(spec(source, output, thresholds=0.15))
        lacking = sum(
            (full[int(uri[-10:-4])] >= 0.15).sum() > len(row["labels"])
            for uri, row in rows(output).items()
        )
        assert 0 < lacking <= result.manifest.plan["unsure"]["labels"] < 300

    def test_stored_labels_are_renamed_when_no_threshold_is_given(
        self, source: Store, output: Store
    ) -> None:
        close_run(source, rows_of(softmax(0, 60), CLASSES, top_k=6), CLASSES,
                  identity=identity(top_k=6))  # fmt: skip
        relabel(spec(source, output, thresholds=0.12))
        third = Store(f"{output.uri}-third")
        relabel(spec(output, third, label_map=MAP))
        before = rows(output)
        for uri, row in rows(third).items():
            named = [MAP.get(label, label) for label in before[uri]["labels"]]
            assert row["labels"] == list(dict.fromkeys(named))
