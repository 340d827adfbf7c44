"""One pass over labelled images: each is fetched once, and ends in a row or in a failure with its
code. A row has the embedding, and a file of the image that is small enough to be trained on.

It is a run like any other, below MODELS/_open/<run_id>: fetched, decoded and inferred by the same
stages, committed in parts, and continued after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

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
from pipeline.runs.run import run
from pipeline.storage.store import Store

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
    if OpenRun.find(store) is None and (done := History.load(store)).runs:
        return done
    pictures = None if spec.train == "head" else LARGER * size
    result = run(_run_spec(spec, model, store), chosen=Chosen(listing, pictures))
    if result.manifest.deferred.images:
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
