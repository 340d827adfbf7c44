"""The output whose rows are worked on: closed runs of one model, and what they store."""

from __future__ import annotations

import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.records import damage_named, read_value
from pipeline.output.identity import check_identity
from pipeline.output.ledger.history import History
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical


def load_source(uri: str, job: str = "relabelling") -> History:
    """The live runs of the output to read; all of one model.

    Raises:
        UsageError: it cannot be read, holds no closed run, or rows of several models.
    """
    try:
        history = History.load(Store(canonical(uri)))
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot read {uri}: {one_line(error)}") from error
    if not history.runs:
        raise UsageError(f"{uri} holds no closed run; name the output of an earlier job")
    newest = history.runs[0]
    advice = f"{job} needs the rows of one model: run the job with <policy.full> first"
    for run in history.runs[1:]:
        check_identity(newest.identity, run.identity, f"the closed run {run.run_id}", advice)
    return history


def find_classes(source: History) -> list[str] | None:
    """The names by ``label_id``, from the newest run that wrote labels, if any did."""
    for run in source.runs:
        name = layout.classes_file(run.run_id)
        with damage_named(source.store.locate(name)):
            classes = source.store.read_json(name)
            if classes is not None:
                return list(read_value(tuple[str, ...], classes, "it"))
    return None


def stored_classes(source: History) -> list[str]:
    """The names by ``label_id``, from the newest run that wrote labels.

    Raises:
        UsageError: none did.
    """
    classes = find_classes(source)
    if classes is None:
        raise UsageError(f"{source.store.uri} has no class names: no run there labelled an image")
    return classes


def check_embeddings(source: History, taker: str, wanted: int | None = None) -> None:
    """Refuse embeddings that a linear head cannot take.

    Args:
        taker: what takes them, for messages.
        wanted: how many dimensions it takes; None for any number.

    Raises:
        UsageError: there are none, or they are of another kind or width.
    """
    kind = source.runs[0].identity
    if kind.embedding is None:
        raise UsageError(f"{source.store.uri} stores no embeddings, which {taker} needs")
    if kind.pooling != "cls_norm" or kind.normalize:
        raise UsageError(
            f"{taker} needs the embeddings that a classifier takes: "
            f"<output.pooling> cls_norm, not normalized; these have {kind.pooling}, "
            f"normalize {kind.normalize}"
        )
    if wanted is None:
        return
    for name in [name for run in source.runs for name in run.file_names][:1]:
        with source.store.fs.open(source.store.path(name)) as file:
            width = pq.read_schema(file).field("embedding").type.list_size
        if width != wanted:
            raise UsageError(f"{taker} takes embeddings of {wanted} dimensions; these have {width}")
