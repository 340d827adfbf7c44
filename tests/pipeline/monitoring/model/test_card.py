"""What a model's README says of how it was trained."""

from typing import Any

import pytest

from pipeline.monitoring.model.card import render_card

METRICS: dict[str, Any] = {
    "images": {"train": 8, "validation": 2}, "champion": None, "classes": [],
    "accuracy": 1.0, "macro_f1": 1.0, "calibration_error": 0.0,
}  # fmt: skip
OF_SETS = {"micro_f1": 1.0, "mean_average_precision": 1.0, "threshold": 0.5}
TRAINING = {
    "run_id": "r", "trained": "head", "parent": "p", "parent_weights_sha256": "0" * 64,
    "spec": {"class_weights": "auto"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (METRICS, "In training all classes counted alike, however"),
        (METRICS | OF_SETS, "In training presence and absence of each class counted half, however"),
    ],
)
def test_what_counted_how_much(metrics: dict[str, Any], expected: str) -> None:
    assert expected in render_card(TRAINING, metrics, "gelu")
    plain = TRAINING | {"spec": {"class_weights": "none"}}
    assert "In training" not in render_card(plain, metrics, "gelu")
