"""The page that a person looks at after a fine-tuning, beside the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from pipeline.monitoring.model.charts import render_calibration, render_curves, render_matrix
from pipeline.monitoring.model.contest import render_contest
from pipeline.monitoring.model.metrics import of_sets
from pipeline.monitoring.model.mistakes import render_issues, render_mistakes
from pipeline.monitoring.page import extent, facts, fragment, lines, number, page, table, tiles

CLASSES_SHOWN = 100
CELL_CLASSES = 10
_NO_PAIRS = (
    '<p class="soft">Where an image may have several labels, no class is taken for another one: '
    "what is said too often, or missed, shows in the precision and the recall of each class."
)
PAIRS_SHOWN = 30


def render_model(
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    predictions: pa.Table,
    issues: pa.Table,
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The whole page, of what is in the files beside it: ``layout.TRAINING``, ``layout.METRICS``,
    ``layout.PREDICTIONS`` and ``layout.LABEL_ISSUES``.

    Args:
        pictures: JPEGs of some images in base 64, by uri.
    """
    sections = [
        tiles(_tiles(metrics)),
        _gate(metrics["gate"]),
        render_contest(metrics["champion"], predictions, pictures, of_sets=of_sets(metrics)),
        _course(metrics.get("epochs", []), training["spec"].get("mixup", 0.0)),
        render_curves(metrics.get("epochs", [])),
        _classes(metrics["classes"]),
        _confusions(metrics, predictions),
        render_mistakes(predictions, pictures),
        render_issues(issues, pictures),
        facts("Images", metrics["images"]),
        facts("Training", {k: v for k, v in training.items() if k not in ("spec", "versions")}),
        facts("Settings", training["spec"]),
        facts("Versions", training["versions"]),
    ]
    return page(f"Model {training['run_id']}", f"trained from {training['parent']}", sections)


def render_cell(run_id: str, metrics: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """An excerpt of the page for a notebook, which asks no storage for anything.

    Args:
        metrics: the content of metrics.json.
        places: where something is, by what it is.
    """
    return fragment(
        f"Model {run_id}",
        [
            tiles(_tiles(metrics)),
            _gate(metrics["gate"]),
            lines(places),
            _classes(metrics["classes"], CELL_CLASSES),
        ],
    )


_MEANS = {
    "macro F1": "macro_f1",
    "micro F1": "micro_f1",
    "mean average precision": "mean_average_precision",
}


def _tiles(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    of_all = ", all labels right" if of_sets(metrics) else ""
    yield f"accuracy on held-out images{of_all}", f"{metrics['accuracy']:.1%}"
    if champion := metrics["champion"]:
        yield "of classes that both know", f"{champion['challengers_accuracy']:.1%}"
        yield "the champion's, of these", f"{champion['accuracy']:.1%}"
    for name, place in _MEANS.items():
        if place in metrics:
            yield name, f"{metrics[place]:.3f}"
    yield "calibration error", f"{metrics['calibration_error']:.3f}"
    yield "classes", f"{len(metrics['classes']):,}"
    for name in ("train", "validation"):
        yield f"images, {name}", f"{metrics['images'][name]:,}"
    yield "labels in doubt", f"{metrics['label_issues']:,}"


def _course(epochs: list[Mapping[str, float]], mixup: float) -> str:
    """Of a network that was trained, epoch by epoch; the best one, or the first of them, is
    marked."""
    best = max(epochs, key=lambda one: (one["accuracy"], -one["loss"]), default=None)
    rows = (
        f"<tr><td>{epoch}{' (this model)' if one is best else ''}"
        f"{number(one['train_loss'], '.3f')}{number(one['loss'], '.3f')}"
        f"{number(one['accuracy'], '.1%')}"
        for epoch, one in enumerate(epochs, 1)
    )
    shown = "loss, trained, of blended images" if mixup else "loss, trained"
    head = f"<tr><th>epoch<th>{shown}<th>loss, held out<th>accuracy, held out"
    return table("Epochs", rows, head)


def _gate(complaint: str | None) -> str:
    return (
        f'<p class="soft"><b>Not published as the newest: {escape(complaint)}</b></p>'
        if (complaint)
        else ""
    )


def _classes(classes: list[Mapping[str, Any]], most: int = CLASSES_SHOWN) -> str:
    """The worst classes first, as those are what a person can do something about."""
    worst = sorted(classes, key=lambda one: one["f1"] if one["support"] else 2.0)
    has_average = any("average_precision" in one for one in classes)
    rows = "".join(
        f"<tr><td>{escape(one['class'])}{number(one['precision'], '.1%')}"
        f"{number(one['recall'], '.1%')}{number(one['f1'], '.3f')}"
        f"{number(one['average_precision'], '.3f') if has_average else ''}"
        f"{number(one['support'], ',')}{number(one['train'], ',')}"
        for one in worst[:most]
    )
    some = extent(most, len(classes))
    average = "<th>average precision" if has_average else ""
    head = f"<tr><th>class<th>precision<th>recall<th>F1{average}<th>held out<th>trained on"
    return f"<h2>Classes, the worst first{some}</h2><table>{head}{rows}</table>"


def _confusions(metrics: Mapping[str, Any], predictions: pa.Table) -> str:
    """What is taken for what, and how sure it is: only where one class excludes the others."""
    if (confusion := metrics.get("confusion")) is None:
        return _NO_PAIRS
    matrix, pairs = render_matrix(confusion, metrics["classes"]), _pairs(confusion)
    calibration = render_calibration(predictions, metrics["calibration_error"]) if confusion else ""
    return matrix + pairs + calibration


def _pairs(confusion: list[Mapping[str, Any]]) -> str:
    mistaken = [cell for cell in confusion if cell["label"] != cell["predicted"]]
    mistaken.sort(key=lambda cell: -cell["images"])
    rows = (
        f"<tr><td>{escape(cell['label'])}<td>{escape(cell['predicted'])}"
        f"{number(cell['images'], ',')}"
        for cell in mistaken[:PAIRS_SHOWN]
    )
    head = "<tr><th>label<th>taken for<th>held-out images"
    return table("What is mistaken for what", rows, head)
