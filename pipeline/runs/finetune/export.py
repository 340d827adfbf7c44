"""A model as files, and how it becomes visible: whole, and never changed afterwards.

    _open/<run_id>/model/*       everything, while it is written
    models/<run_id>/*            moved there; on a local disk in one step
    latest.json                  names it, if it may be used

The same images, labels, settings and parents give the same run_id and the same model. Whoever is
interrupted writes the same files again.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.published import LatestModel, Training
from pipeline.monitoring.model.card import render_card
from pipeline.monitoring.model.page import render_model
from pipeline.runs.finetune.champion import Contest
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.pictures import PageImages
from pipeline.storage.store import Store


def is_published(store: Store, run_id: str) -> bool:
    """Whether the model is there, whole."""
    target = layout.model_dir(run_id)
    marks = (layout.METRICS, layout.TRAINING)
    is_there = all(store.exists(f"{target}/{name}") for name in marks)
    return is_there and not store.list(layout.open_dir(run_id))


def publish_model(
    store: Store,
    checkpoint: TrainableCheckpoint,
    fitted: Fitted,
    training: Training,
    metrics: Mapping[str, Any],
    images: PageImages,
    contest: Contest | None = None,
) -> None:
    """Write a model and everything beside it. Safe to repeat."""
    staged, target = layout.staged_model(training.run_id), layout.model_dir(training.run_id)
    store.remove(staged)
    for name, data in _files(checkpoint, fitted, training, metrics, images, contest):
        store.write_bytes(f"{staged}/{name}", data)
    store.remove(target)  # what an interrupted move has left there
    store.move(staged, target)
    store.remove(layout.open_dir(training.run_id))  # what it was made of


def point_to(store: Store, run_id: str) -> None:
    """Make a model the newest one."""
    store.write_json(layout.LATEST, LatestModel(layout.model_dir(run_id)).to_dict())


def _files(
    checkpoint: TrainableCheckpoint,
    fitted: Fitted,
    training: Training,
    metrics: Mapping[str, Any],
    images: PageImages,
    contest: Contest | None,
) -> Iterator[tuple[str, bytes]]:
    """By name, those that make the model whole at the end."""
    facts, predictions = training.to_dict(), fitted.predictions()
    if contest is not None:
        columns = {"champion": contest.answers, "contest": contest.outcomes}
        for name, values in columns.items():
            predictions = predictions.append_column(name, pa.array(values, pa.string()))
    tables = predictions, fitted.doubtful()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder))
        for path in sorted(Path(folder).iterdir()):
            yield path.name, path.read_bytes()
    yield layout.HEAD, _head(fitted)
    yield layout.PREDICTIONS, _parquet(tables[0])
    yield layout.LABEL_ISSUES, _parquet(tables[1])
    yield layout.CARD, _text(render_card(facts, metrics, checkpoint.activation))
    yield layout.REPORT, _text(render_model(facts, metrics, *tables, images.shown(*tables)))
    yield layout.METRICS, Store.json_bytes(metrics)
    yield layout.TRAINING, Store.json_bytes(facts)


def _head(fitted: Fitted) -> bytes:
    """What ``Head.load`` reads."""
    buffer = io.BytesIO()
    np.savez(buffer, **fitted.head)
    return buffer.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _text(page: str) -> bytes:
    return page.encode("utf-8", "backslashreplace")
