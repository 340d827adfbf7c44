"""The images of a run that deserve a look, with what people said of them so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.corrections import QUEUES, Correction, Queue
from pipeline.contract.errors import UsageError
from pipeline.contract.records import damage_named, read_value
from pipeline.output.corrections.collected import standing
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store

_REASONS = ("random", *(queue for queue in QUEUES if queue != "random"))
"""Of an image with several, the first counts: the random sample stays a whole one."""
_EARLIER: dict[str, Queue] = {"unlike earlier": "unlike"}
"""What earlier versions called a reason."""


@dataclass(frozen=True)
class Shown:
    """An image of the queue."""

    uri: str
    queue: Queue
    proposed: str
    score: float | None
    picture: bytes | None
    """A JPEG file of what the model saw; None if the run has kept none."""
    correction: Correction | None

    @property
    def label(self) -> str | None:
        """What it is, as far as people have said."""
        return (self.correction.label or None) if self.correction else None


@dataclass(frozen=True)
class ReviewedQueue:
    """The queue of a run."""

    run_id: str
    images: list[Shown]
    classes: list[str]
    """Those of the model, by ``label_id``, and then those that only people know."""

    @classmethod
    def read(cls, store: Store, run_id: str | None = None) -> ReviewedQueue:
        """That of a run, or of the newest run that has one.

        Raises:
            UsageError: the run has none, or no run has one.
            DamagedFileError: a file of corrections is not whole.
        """
        found = run_id if run_id is not None else _newest(store)
        table = _table(store, found)
        images = list(_shown(table, standing(store)))
        classes = dict.fromkeys([*_classes(store, found), *(one.proposed for one in images)])
        known = sorted({one.label for one in images if one.label} - classes.keys())
        return cls(found, images, [*filter(None, classes), *known])


def _newest(store: Store) -> str:
    runs = sorted(filter(layout.is_run_id, store.children(layout.RUNS)), reverse=True)
    for run_id in runs:
        if store.exists(_name(run_id)):
            return run_id
    raise UsageError(f"no run in {store.uri} has a review queue; run it with a <output.review>")


def _name(run_id: str) -> str:
    return f"{layout.run_dir(run_id)}/{layout.REVIEW}"


def _table(store: Store, run_id: str) -> pa.Table:
    if not layout.is_run_id(run_id):
        raise UsageError(f"<corrections.run> is {run_id!r}, which no run is called")
    try:
        return read_table(store, _name(run_id))
    except FileNotFoundError as error:
        raise UsageError(
            f"the run {run_id} has no review queue in {store.uri}; leave <corrections.run> out for "
            "the newest that has one"
        ) from error


def _classes(store: Store, run_id: str) -> tuple[str, ...]:
    name = layout.classes_file(run_id)
    with damage_named(store.locate(name)):
        classes = store.read_json(name)
        return () if classes is None else read_value(tuple[str, ...], classes, "it")


def _shown(table: pa.Table, said: dict[str, Correction]) -> Iterator[Shown]:
    """Each image once, in the order of the queue."""
    reasons: dict[str, list[str]] = {}
    rows = table.to_pylist()
    for row in rows:
        row["reason"] = _EARLIER.get(row["reason"], row["reason"])
        reasons.setdefault(row["uri"], []).append(row["reason"])
    for row in rows:
        if row["reason"] == min(reasons[row["uri"]], key=_REASONS.index):
            yield Shown(
                uri=row["uri"],
                queue=row["reason"],
                proposed=row["label"] or "",
                score=row["score"],
                picture=row.get("picture"),
                correction=said.get(row["uri"]),
            )
