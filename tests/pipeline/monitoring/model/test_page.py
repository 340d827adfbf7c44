"""The page of a fine-tuned model, of what is in the files beside it."""

from typing import Any

import pyarrow as pa

from pipeline.monitoring.model.page import render_model

METRICS: dict[str, Any] = {
    "accuracy": 0.5, "macro_f1": 0.5, "calibration_error": 0.1, "label_issues": 0,
    "images": {"train": 4, "validation": 2}, "classes": [], "confusion": [],
    "champion": None, "gate": None,
}  # fmt: skip
TRAINING: dict[str, Any] = {"run_id": "a1", "parent": "cvt-13", "spec": {}, "versions": {}}
TEXTS = ("uri", "split", "label", "predicted")
PREDICTIONS = pa.schema([(name, pa.string()) for name in TEXTS] + [("loss", pa.float64())])


def page(mixup: float = 0.0, **metrics: Any) -> str:
    empty = PREDICTIONS.empty_table()
    training = TRAINING | {"spec": {"mixup": mixup}}
    return render_model(training, METRICS | metrics, empty, empty)


def test_of_equally_good_epochs_the_first_is_the_model() -> None:
    """As the training chooses it."""
    course = [{"train_loss": 1.0, "loss": loss, "accuracy": 0.5} for loss in (0.9, 0.8, 0.8)]
    found = page(epochs=course)
    assert found.count("(this model)") == 1
    assert "<td>2 (this model)" in found


def test_a_head_alone_has_no_epochs() -> None:
    assert "Epochs" not in page()


def test_a_loss_says_of_which_images_it_is() -> None:
    course = [{"train_loss": 1.0, "loss": 0.5, "accuracy": 0.5}]
    assert "<th>loss, trained<th>loss, held out" in page(epochs=course)
    assert "<th>loss, trained, of blended images<th>" in page(mixup=0.2, epochs=course)
