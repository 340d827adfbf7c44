"""Numbers of a model's page as pictures: its epochs, its confusion, its calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.monitoring.model.mistakes import held_out

MATRIX_CLASSES = 30
"""The most that a matrix is readable with."""
BINS = 10
"""Of scores, in the picture of the calibration."""
WIDTH, HEIGHT, EDGE = 320, 180, 24
"""Of a drawing, and of what surrounds its axes."""


def render_curves(epochs: Sequence[Mapping[str, float]]) -> str:
    """Losses and accuracy by epoch; nothing if there are fewer than two."""
    if len(epochs) < 2:
        return ""
    losses = {name: [one[name] for one in epochs] for name in ("train_loss", "loss")}
    accuracy = [one["accuracy"] for one in epochs]
    drawn = (
        _drawing("loss: held out, and trained (dashed)", max(map(max, losses.values())), losses),
        _drawing("accuracy on held-out images", 1.0, {"accuracy": accuracy}),
    )
    return f'<div class="charts">{"".join(drawn)}</div>'


def _drawing(title: str, highest: float, lines: Mapping[str, Sequence[float]]) -> str:
    """Lines from epoch to epoch, from zero on."""
    scale = (HEIGHT - 2 * EDGE) / (highest or 1.0)
    body = ""
    for name, values in lines.items():
        step = (WIDTH - 2 * EDGE) / (len(values) - 1)
        points = " ".join(
            f"{EDGE + at * step:.1f},{HEIGHT - EDGE - value * scale:.1f}"
            for at, value in enumerate(values)
        )
        body += f'<polyline class="{name}" points="{points}"/>'
    last = len(next(iter(lines.values())))
    return _svg(title, f"{highest:.3g}", str(last), body)


def _svg(title: str, highest: str, last: str, body: str) -> str:
    """A drawing with its axes, whose ends are named."""
    floor = HEIGHT - EDGE
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<path class="axis" d="M{EDGE},{EDGE}V{floor}H{WIDTH - EDGE}"/>{body}'
        f'<text x="{EDGE}" y="{EDGE - 6}">{highest}</text>'
        f'<text x="{WIDTH - EDGE}" y="{HEIGHT - 6}" text-anchor="end">{last}</text>'
        f"</svg><figcaption>{escape(title)}</figcaption></figure>"
    )


def render_matrix(
    confusion: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]
) -> str:
    """Label against prediction, as shares of the label's images; nothing if there are more classes
    than can be looked at, or no images.

    Args:
        confusion: of metrics.json, as is ``classes``.
    """
    names = [one["class"] for one in classes]
    if not confusion or len(names) > MATRIX_CLASSES:
        return ""
    cells = {(one["label"], one["predicted"]): one["images"] for one in confusion}
    heads = "".join(f'<th scope="col"><span>{escape(name)}</span>' for name in names)
    rows = "".join(_matrix_row(name, names, cells) for name in names)
    return (
        "<h2>Confusion: labels in rows, predictions in columns</h2>"
        f'<div class="scroll"><table class="matrix"><tr><td>{heads}{rows}</table></div>'
    )


def _matrix_row(label: str, names: Sequence[str], cells: Mapping[tuple[str, str], int]) -> str:
    numbers = [cells.get((label, name), 0) for name in names]
    total = sum(numbers) or 1
    filled = "".join(
        f'<td class="{"hit" if name == label else "miss"}" style="--share:{images / total:.2f}">'
        f"{images:,}"
        if images
        else "<td>"
        for name, images in zip(names, numbers, strict=True)
    )
    return f'<tr><th scope="row">{escape(label)}{filled}'


def render_calibration(predictions: pa.Table, error: float) -> str:
    """How often answers of a certain score are right; nothing without held-out images.

    Args:
        predictions: ``layout.PREDICTIONS``, of classes that exclude each other.
        error: the expected calibration error, of metrics.json.
    """
    held = held_out(predictions)
    if not len(held):
        return ""
    scores = held["score"].to_numpy()
    right = pc.equal(held["label"], held["predicted"]).to_numpy()
    title = "share that is right, by the score of the answer; on the line it is as it says"
    body = f'<path class="ideal" d="M{EDGE},{HEIGHT - EDGE}L{WIDTH - EDGE},{EDGE}"/>'
    drawn = _svg(title, "100 %", "score 100 %", "".join(_bars(scores, right)) + body)
    return f'<h2>Calibration: {error:.1%} off on average</h2><div class="charts">{drawn}</div>'


def _bars(scores: npt.NDArray[Any], right: npt.NDArray[Any]) -> Iterator[str]:
    """A bar for each range of scores that there is."""
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    width, high = (WIDTH - 2 * EDGE) / BINS, HEIGHT - 2 * EDGE
    for one in np.unique(bins).tolist():
        share, images = float(right[bins == one].mean()), int((bins == one).sum())
        yield (
            f'<rect x="{EDGE + one * width + 1:.1f}" width="{width - 2:.1f}" '
            f'y="{HEIGHT - EDGE - share * high:.1f}" height="{share * high:.1f}">'
            f"<title>score {one / BINS:.0%} to {(one + 1) / BINS:.0%}: {images:,} images, "
            f"{share:.1%} right</title></rect>"
        )
