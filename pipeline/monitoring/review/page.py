"""The page on which a person corrects the queue of a run: one file, whose size is bounded.

Its parts are in ``assets/``: the page itself, its style, and its script in pieces that are put
behind each other. What comes from outside (names, URIs) is data to it and never becomes HTML.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import chain, islice, takewhile, zip_longest
from math import isfinite
from typing import Any

import pyarrow as pa

from pipeline.contract.corrections import QUEUES, Queue
from pipeline.contract.manifest import Manifest
from pipeline.monitoring.review.queue import RANDOM

MOST_IMAGES_BYTES = 12 * 2**20
"""Of what the page has of images. A picture has some 10 kB, so that is a thousand."""
MOST_CLASSES_BYTES = 4 * 2**20
"""Of the names to search, which is a hundred thousand."""
CHOICES = 5
"""As many as there are keys for."""
TITLES: Mapping[Queue, str] = {
    "random": "Random sample",
    "uncertain": "Uncertain",
    "unlike": "Unlike earlier ones",
    "threshold": "Near a threshold",
}
_SCRIPTS = ("csv.js", "classes.js", "decisions.js", "search.js", "show.js", "page.js")


def review_page(manifest: Manifest, queue: pa.Table, classes: Sequence[str]) -> str:
    """The whole page.

    Args:
        manifest: of the run.
        queue: its images, with the schema ``REVIEW``.
        classes: the names to choose from, beside those in the queue.
    """
    images = {row["uri"]: row for row in _in_turn(queue)}
    items = list(_fitting(map(_item, images.values()), MOST_IMAGES_BYTES))
    data = {
        "run": {
            "id": manifest.run_id,
            "model": manifest.model.model,
            "images": manifest.counts.ok,
            "unshown": len(images) - len(items),
            "scores": manifest.identity.scores,
        },
        "titles": TITLES,
        "classes": list(_fitting(classes, MOST_CLASSES_BYTES)),
        "items": items,
    }
    style, script = _asset("page.css"), "".join(map(_asset, _SCRIPTS))
    parts = {
        "title": escape(manifest.run_id),
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "style": style,
        "script": script,
        "data": as_data(data),
    }
    # One pass each way: what is filled in is not looked through again.
    pieces = _asset("page.html").split("{{")
    return pieces[0] + "".join(_filled(piece, parts) for piece in pieces[1:])


def as_data(value: Any) -> str:
    """JSON that may stand in a ``script`` element, whatever its texts are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _in_turn(queue: pa.Table) -> Iterator[dict[str, Any]]:
    """An image of each reason after the other. One with several has ``also`` the others; if it is
    of the random sample, it stays in its place there: who has looked at the first images of the
    sample has then looked at a random sample, too."""
    reasons: dict[str, list[Queue]] = {}
    for uri, reason in zip(*(queue[n].to_pylist() for n in ("uri", "reason")), strict=True):
        reasons.setdefault(uri, []).append(reason)
    by_reason: dict[Queue, list[dict[str, Any]]] = {reason: [] for reason in (RANDOM, *QUEUES)}
    for row in queue.to_pylist():
        mine = sorted(reasons[row["uri"]], key=list(by_reason).index)
        if row["reason"] == mine[0]:
            by_reason[mine[0]].append(row | {"also": mine[1:]})
    rounds = chain.from_iterable(zip_longest(*by_reason.values()))
    return (row for row in rounds if row is not None)


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    scored = zip(row["topk_labels"] or (), row["topk_scores"] or (), strict=True)
    choices = takewhile(_can_be_chosen, scored)
    picture = row["picture"]
    return {
        "uri": row["uri"],
        "queue": row["reason"],
        "also": row["also"],
        "value": round(row["value"], 6),
        "choices": [(label, round(score, 6)) for label, score in islice(choices, CHOICES)],
        "picture": None if picture is None else base64.b64encode(picture).decode(),
    }


def _can_be_chosen(choice: tuple[str | None, float]) -> bool:
    """A nameless class could be written to no file, and JSON knows finite numbers only."""
    label, score = choice
    return bool(label and label.strip()) and isfinite(score)


def _fitting(values: Iterable[Any], most_bytes: int) -> Iterator[Any]:
    """The first of them, as many as there is room for."""
    size = 0
    for value in values:
        size += len(as_data(value).encode("utf-8", "backslashreplace"))
        if size > most_bytes:
            return
        yield value


def _filled(piece: str, parts: Mapping[str, str]) -> str:
    name, rest = piece.split("}}", 1)
    return parts[name] + rest


def _hash(text: str) -> str:
    """As a content security policy names what may be executed."""
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text("utf-8")
