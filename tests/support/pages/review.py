"""Review pages of made-up queues."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.contract.manifest import Manifest
from pipeline.monitoring.review.page import review_page
from pipeline.monitoring.review.queue import REVIEW
from tests.support.inputs.images import encode

CLASSES = ("Ankle boot", "Bag", "Coat", "Dress", "Pullover", "Sandal", "Shirt", "Sneaker")


def jpeg(number: int, side: int = 32) -> bytes:
    """A picture of one colour."""
    return encode(Image.new("RGB", (side, side), (number * 40 % 256, 120, 200)), "JPEG")


def row(number: int, reason: str = "uncertain", **changes: Any) -> dict[str, Any]:
    """Of a queue: the proposed classes begin with that of this number."""
    labels = [CLASSES[(number + step) % len(CLASSES)] for step in range(5)]
    made: dict[str, Any] = {
        "uri": f"s3://photos/2026/{number:03d}.jpg",
        "reason": reason,
        "value": 0.01 * number,
        "topk_labels": labels,
        "topk_scores": [0.4, 0.3, 0.15, 0.1, 0.05],
        "picture": jpeg(number),
    }
    made |= changes
    best = {"label": made["topk_labels"], "score": made["topk_scores"]}
    return made | {name: values[0] if values else None for name, values in best.items()}


def page_text(
    rows: Sequence[dict[str, Any]],
    *,
    run_id: str = "20261127T024833Z-492cd",
    classes: Sequence[str] = CLASSES,
    **manifest: Any,
) -> str:
    """The page of a queue of these rows."""
    content = {
        "run_id": run_id, "identity": {"scores": "softmax"}, "model": {"model": "m"},
        "counts": {"listed": 1000, "ok": 1000}, "files": [], "spec": {}, **manifest,
    }  # fmt: skip
    queue = pa.Table.from_pylist(list(rows), schema=REVIEW)
    return review_page(Manifest.from_dict(content), queue, classes)


def write_page(directory: Path, rows: Sequence[dict[str, Any]], **changes: Any) -> Path:
    """The same as a file."""
    page = directory / "review.html"
    page.write_text(page_text(rows, **changes), "utf-8")
    return page
