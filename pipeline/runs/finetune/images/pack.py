"""One pass over labelled images: each is fetched once, and ends in a row or in a failure with its
code. A row has the embedding, and a file of the image that is small enough to be trained on.

It is a run like any other, below MODELS/_open/<run_id>: fetched, decoded and inferred by the same
stages, committed in parts, and continued after a kill.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import RunError
from pipeline.contract.spec import (
    ComputeSpec,
    FinetuneSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRun
from pipeline.runs.computing.execution import Chosen
from pipeline.runs.finetune.images.listed import input_spec
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.run import run
from pipeline.sources.formats.registry import is_shard
from pipeline.storage.store import Store

_ROWS = 8192
"""Of answers, read at a time."""
LARGER = 2
"""The short side of a stored picture, in sides of what the network sees: crops stay sharp."""


def pack(
    spec: FinetuneSpec, model: ModelSpec, size: int, listing: Sequence[pa.Table], store: Store
) -> History:
    """Read what was listed, unless that is done.

    Args:
        model: which network embeds the images.
        size: of what it sees, S.
        store: where the rows go.

    Raises:
        RunError: it could not finish; the same call continues it.
    """
    pictures = None if spec.train == "head" else LARGER * size
    return _read(_run_spec(spec, model, store), store, Chosen(listing, pictures))


def answers(
    spec: FinetuneSpec,
    model: ModelSpec,
    listing: Sequence[pa.Table],
    uris: Iterable[str],
    store: Store,
    column: str = "label",
) -> dict[str, tuple[str, ...]]:
    """What another model says of some of the images, which are read once more for it: the classes
    by uri, without those that cannot be read any more.

    Args:
        store: where its rows go.
        column: of these, with a class or a list of them.

    Raises:
        RunError: it could not finish; the same call continues it.
    """
    asked = set(uris)
    run_spec = _run_spec(spec, model, store)
    run_spec = replace(run_spec, output=replace(run_spec.output, top_k=1, embeddings=False))
    history = _read(run_spec, store, Chosen([_of(asked, table) for table in listing]))
    found: dict[str, Any] = {}
    for table in LiveRows.of(history).batches(_ROWS, ["uri", column]):
        found.update(zip(table["uri"].to_pylist(), table[column].to_pylist(), strict=True))
    return {
        uri: tuple(sorted(said)) if isinstance(said, list) else (said,)
        for uri, said in found.items()
        if uri in asked and said is not None
    }


def _of(uris: set[str], listing: pa.Table) -> pa.Table:
    """The images, and all shards, as one cannot tell which of their members are among them."""
    named = pc.is_in(listing["uri"], pa.array(sorted(uris), pa.string()))
    return listing.filter(pc.or_(named, is_shard(listing["kind"])))


def _read(spec: RunSpec, store: Store, chosen: Chosen) -> History:
    """The rows of a run, unless they are there."""
    if OpenRun.find(store) is None and (done := History.load(store)).runs:
        return done
    if run(spec, chosen=chosen).manifest.deferred.images:
        raise RunError("not all images were read; start the same command again")
    return History.load(store)


def _run_spec(spec: FinetuneSpec, model: ModelSpec, store: Store) -> RunSpec:
    return RunSpec(
        inputs=input_spec(spec),
        model=model,
        output=OutputSpec(uri=store.uri, embeddings=True, review=0),
        compute=ComputeSpec(num_gpus=spec.num_gpus),
        policy=PolicySpec(max_failure_rate=1.0),
    )
