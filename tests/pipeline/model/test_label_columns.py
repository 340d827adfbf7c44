"""Scores as columns, against the same in plain Python."""

import pyarrow as pa
import pytest
import torch

from cvt import labels_above
from pipeline.contract.schema import LABELS, TOP_K
from pipeline.model.label_columns import label_columns

CLASSES = pa.array([f"class {number}" for number in range(9)])


@pytest.mark.parametrize("thresholds", [(0.5,) * 9, (0.9,) * 9, tuple(i / 9 for i in range(9))])
def test_columns_say_what_python_says(thresholds: tuple[float, ...]) -> None:
    scores = torch.rand(200, 9, generator=torch.Generator().manual_seed(0))
    columns = label_columns(scores, CLASSES, 4, thresholds)
    for field in [*TOP_K, LABELS]:
        assert columns[field.name].type == field.type
    names = CLASSES.to_pylist()
    assert columns["labels"].to_pylist() == labels_above(scores, thresholds, names)
    for number, row in enumerate(scores.tolist()):
        best = sorted(range(9), key=lambda i: -row[i])[:4]
        assert columns["topk_ids"][number].as_py() == best
        assert columns["topk_labels"][number].as_py() == [names[i] for i in best]
        assert columns["topk_scores"][number].as_py() == [row[i] for i in best]
        assert columns["label_id"][number].as_py() == best[0]
        assert columns["label"][number].as_py() == names[best[0]]
        assert columns["score"][number].as_py() == row[best[0]]


def test_a_class_of_unknown_score_stands_nowhere() -> None:
    scores = torch.tensor([[0.2, -torch.inf, 0.7], [-torch.inf, 0.1, -torch.inf]])
    columns = label_columns(scores, CLASSES[:3], 3, (0.15, 0.0, 0.0))
    assert columns["topk_ids"].to_pylist() == [[2, 0], [1]]
    assert columns["labels"].to_pylist() == [["class 2", "class 0"], ["class 1"]]


def test_no_label_reaches() -> None:
    columns = label_columns(torch.zeros(2, 9), CLASSES, 1, (0.5,) * 9)
    assert columns["labels"].to_pylist() == [[], []]
