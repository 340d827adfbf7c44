"""Drawings of a model's page, against scikit-learn where it draws the same."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from pipeline.monitoring.model.charts import (
    MATRIX_CLASSES,
    render_calibration,
    render_curves,
    render_matrix,
)

NAMES = ["<ant>", "bee", "cow"]


def answers(seed: int, rows: int = 400) -> pa.Table:
    """Of a model that is surer than it should be; a tenth was trained on."""
    rng = np.random.default_rng(seed)
    labels, predicted = rng.choice(NAMES, rows), rng.choice(NAMES, rows)
    is_right = rng.random(rows) < 0.6
    predicted[is_right] = labels[is_right]
    columns = {
        "split": np.where(np.arange(rows) % 10, "validation", "train"),
        "label": labels,
        "predicted": predicted,
        "score": rng.uniform(1 / 3, 1, rows).astype(np.float32),
    }
    return pa.table(columns)


def held(table: pa.Table, name: str) -> Any:
    return np.array(table[name].to_pylist())[np.array(table["split"].to_pylist()) == "validation"]


@pytest.mark.parametrize("seed", range(3))
def test_bars_are_the_calibration_curve(seed: int) -> None:
    table = answers(seed)
    right = held(table, "label") == held(table, "predicted")
    expected, _ = calibration_curve(right, held(table, "score"), n_bins=10)
    page = render_calibration(table, 0.25)
    shares = [float(one) for one in re.findall(r"([\d.]+)% right", page)]
    assert np.allclose(shares, 100 * expected, atol=0.05)
    heights = [float(one) for one in re.findall(r'height="([\d.]+)">', page)]
    assert np.allclose(np.array(heights) / 132, expected, atol=0.001)
    assert "Calibration: 25.0% off" in page


def test_the_surest_answer_is_in_the_last_bar() -> None:
    one = {"split": ["validation"], "label": ["a"], "predicted": ["a"], "score": [1.0]}
    assert "score 90% to 100%: 1 images, 100.0% right" in render_calibration(pa.table(one), 0.0)
    assert render_calibration(pa.table(one | {"split": ["train"]}), 0.0) == ""


def confusion(table: pa.Table) -> list[dict[str, Any]]:
    """As metrics.json has it: cells without an image are left out."""
    pairs = list(zip(table["label"].to_pylist(), table["predicted"].to_pylist(), strict=True))
    return [
        {"label": label, "predicted": other, "images": pairs.count((label, other))}
        for label, other in sorted(set(pairs))
    ]


def test_the_matrix() -> None:
    table = answers(0)
    page = render_matrix(confusion(table), [{"class": name} for name in NAMES])
    numbers = [int(one) for one in re.findall(r'"--share:[\d.]+">(\d+)', page)]
    expected = confusion_matrix(table["label"].to_pylist(), table["predicted"].to_pylist())
    assert numbers == expected.ravel().tolist()
    shares = [float(one) for one in re.findall(r"--share:([\d.]+)", page)]
    assert np.allclose(shares, (expected / expected.sum(axis=1, keepdims=True)).ravel(), atol=0.006)
    assert page.count('class="hit"') == 3
    assert re.findall(r'scope="row">([^<]*)', page) == ["&lt;ant&gt;", "bee", "cow"]
    assert "<ant>" not in page


def test_a_matrix_that_nobody_could_read_is_left_out() -> None:
    found = confusion(answers(0))
    classes = [{"class": f"class {number}"} for number in range(MATRIX_CLASSES + 1)]
    assert render_matrix(found, classes) == ""
    assert "matrix" in render_matrix(found, classes[:-1])
    assert render_matrix([], classes[:3]) == ""


def test_the_curves() -> None:
    epochs = [
        {"train_loss": 2.0, "loss": 1.0, "accuracy": 0.0},
        {"train_loss": 1.0, "loss": 0.5, "accuracy": 0.5},
        {"train_loss": 0.0, "loss": 0.25, "accuracy": 1.0},
    ]
    page = render_curves(epochs)
    lines = dict(re.findall(r'class="(\w+)" points="([^"]*)"', page))
    assert lines["train_loss"] == "24.0,24.0 160.0,90.0 296.0,156.0"
    assert lines["accuracy"] == "24.0,156.0 160.0,90.0 296.0,24.0"
    assert lines["loss"].split()[-1] == "296.0,139.5"
    assert render_curves(epochs[:1]) == render_curves([]) == ""
    assert "points" in render_curves([one | {"train_loss": 0.0, "loss": 0.0} for one in epochs])
