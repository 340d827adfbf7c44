"""A queue in the files of other tools: tasks of Label Studio, a data set of FiftyOne's, one of
Hugging Face's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.spec import Tool
from pipeline.output.corrections.label_studio import BAD_PICTURE, CONTROL, NO_CLASS
from pipeline.output.corrections.queue import ReviewedQueue, Shown
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical

TASKS, INTERFACE = "tasks.json", "interface.xml"
"""To be imported into a project of Label Studio, and to be set as its labelling interface."""
LABELS = "labels.json"
"""Beside ``data/``: what FiftyOne calls FiftyOneImageClassificationDataset."""
TRAIN = "data/train-00000-of-00001.parquet"
"""Where ``datasets.load_dataset`` looks for a split."""


def export(queue: ReviewedQueue, tool: Tool, to: str) -> int:
    """Write a queue into an empty directory; returns how many images it has there.

    Raises:
        UsageError: there is something in the directory, or nothing to write.
        RunError: the storage failed.
    """
    target = Store(canonical(to))
    try:
        if target.list("", or_itself=True):
            raise UsageError(f"<corrections.to> {to} is not empty; name a new directory")
        written = _WRITERS[tool](queue, target)
    except STORAGE_ERRORS as error:
        raise RunError(f"exporting the queue stopped: {one_line(error)}; remove {to}") from error
    return written


def _label_studio(queue: ReviewedQueue, target: Store) -> int:
    """Tasks for the images that nobody has corrected yet, with what the model proposes."""
    tasks = [_task(one, queue.run_id) for one in queue.images if one.correction is None]
    if not tasks:
        raise UsageError(f"every image in the queue of run {queue.run_id} is corrected already")
    choices = "".join(
        f"    <Choice value={quoteattr(name)}/>\n"
        for name in (*queue.classes, NO_CLASS, BAD_PICTURE)
    )
    interface = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="{CONTROL}" toName="image" choice="single-radio" showInLine="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )
    target.write_bytes(INTERFACE, interface.encode("utf-8", "backslashreplace"))
    target.write_json(TASKS, tasks)
    return len(tasks)


def _task(one: Shown, run_id: str) -> dict[str, Any]:
    """A task; without a picture, Label Studio is to fetch the image itself."""
    picture = base64.b64encode(one.picture or b"").decode()
    chosen = {
        "id": "1", "from_name": CONTROL, "to_name": "image", "type": "choices",
        "value": {"choices": [one.proposed]},
    }  # fmt: skip
    prediction = {"model_version": run_id, "score": one.score, "result": [chosen]}
    return {
        "data": {
            "image": f"data:image/jpeg;base64,{picture}" if picture else one.uri,
            "uri": one.uri,
            "queue": one.queue,
            "proposed": one.proposed,
            "score": one.score,
            "run_id": run_id,
        },
        "predictions": [prediction] if one.proposed else [],
    }


def _fiftyone(queue: ReviewedQueue, target: Store) -> int:
    """The pictures, and what they are: what people said, or else what the model proposed."""
    images = [one for one in queue.images if one.picture is not None]
    _check_pictures(queue, len(images))
    labels: dict[str, Any] = {}
    for number, one in enumerate(images):
        target.write_bytes(f"data/{number:06d}.jpg", one.picture or b"")
        labels[f"{number:06d}"] = _classification(one, queue.run_id)
    target.write_json(LABELS, {"classes": None, "labels": labels})
    return len(images)


def _classification(one: Shown, run_id: str) -> dict[str, Any]:
    verdict = one.correction.verdict if one.correction else None
    known = {"uri": one.uri, "queue": one.queue, "proposed": one.proposed, "run_id": run_id}
    told: dict[str, Any] = {"label": one.proposed if verdict is None else one.label or verdict}
    if verdict is None:
        told["confidence"] = one.score
    return told | {"attributes": known | {"verdict": verdict}}


def _hugging_face(queue: ReviewedQueue, target: Store) -> int:
    """A Parquet file whose schema says what ``datasets`` makes of its columns."""
    images = queue.images
    _check_pictures(queue, sum(one.picture is not None for one in images))
    number = {name: position for position, name in enumerate(queue.classes)}
    verdicts = [one.correction.verdict if one.correction else None for one in images]
    jpeg = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array(
                [one.picture and {"bytes": one.picture, "path": None} for one in images], jpeg
            ),
            "label": pa.array([number.get(one.label or "") for one in images], pa.int64()),
            "verdict": pa.array(verdicts, pa.string()),
            "proposed": pa.array([number.get(one.proposed) for one in images], pa.int64()),
            "score": pa.array([one.score for one in images], pa.float32()),
            "queue": pa.array([one.queue for one in images], pa.string()),
            "uri": pa.array([one.uri for one in images], pa.string()),
        }
    )
    described = json.dumps({"info": {"features": _features(table.schema, queue.classes)}})
    write_table(target, TRAIN, table.replace_schema_metadata({"huggingface": described}))
    return len(images)


def _features(schema: pa.Schema, classes: list[str]) -> dict[str, Any]:
    """The columns as ``datasets`` describes them."""
    special: dict[str, dict[str, Any]] = {
        "image": {"_type": "Image"},
        "label": {"names": classes, "_type": "ClassLabel"},
        "proposed": {"names": classes, "_type": "ClassLabel"},
        "score": {"dtype": "float32", "_type": "Value"},
    }
    text = {"dtype": "string", "_type": "Value"}
    return {name: special.get(name, text) for name in schema.names}


def _check_pictures(queue: ReviewedQueue, number: int) -> None:
    if not number:
        raise UsageError(
            f"the run {queue.run_id} has kept no pictures of its queue; run it again with "
            "<policy.full>, or export for label-studio, which fetches images itself"
        )


_WRITERS: dict[Tool, Callable[[ReviewedQueue, Store], int]] = {
    "label-studio": _label_studio,
    "fiftyone": _fiftyone,
    "hf": _hugging_face,
}
