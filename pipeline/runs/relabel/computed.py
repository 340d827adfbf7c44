"""Rows as a run with another model would write them, from the embeddings that both share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from pipeline.contract.errors import UsageError
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.spec import (
    DEFAULT_TOP_K,
    DecodeMode,
    Dtype,
    InputSpec,
    ModelSpec,
    OutputSpec,
    RelabelSpec,
    RunSpec,
)
from pipeline.model.arithmetic import Arithmetic
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.loaded import LoadedModel
from pipeline.model.network import Checkpoint, TrainableCheckpoint
from pipeline.model.training.published import newest_model, training_of
from pipeline.output.ledger.history import History
from pipeline.runs.relabel.linear_head import Head
from pipeline.runs.relabel.source import check_embeddings


@dataclass(frozen=True)
class Computed:
    """A model whose backbone has computed the embeddings of an output."""

    head: Head
    identity: Identity
    """Of a run with the model, in the arithmetic and with the columns of the output."""
    provenance: Provenance

    @classmethod
    def of(cls, source: str, spec: RelabelSpec, rows: History) -> Computed:
        """Read a model for the embeddings of ``rows``.

        Raises:
            UsageError: it cannot be read, or a run with it would have other embeddings.
        """
        check_embeddings(rows, "<relabel.model>")
        found = newest_model(source)
        old = rows.runs[0].identity
        checkpoint = load_checkpoint(ModelSpec(source=found))
        _check(checkpoint, found, old, rows.store.uri)
        if not isinstance(checkpoint, TrainableCheckpoint) or not checkpoint.classes:
            raise UsageError(f"<relabel.model> {found} has no classifier")
        run = _run(found, spec, old)
        loaded = LoadedModel.of(checkpoint, run, Arithmetic(cast(Dtype, old.dtype)))
        weight, bias = (np.ascontiguousarray(part, np.float32) for part in checkpoint.head)
        head = Head(weight, bias, checkpoint.classes, checkpoint.default_scores)
        return cls(head, replace(loaded.identity, kept=old.kept), loaded.provenance)


def sees_alike(checkpoint: Checkpoint, stored: Identity) -> bool:
    """Whether a checkpoint has the preprocessing and the activation of stored rows, however their
    images were decoded."""
    preprocessing = {name: one for name, one in stored.preprocessing.items() if name != "decode"}
    theirs = {"activation": stored.activation, **preprocessing}
    return theirs == {"activation": checkpoint.activation, **checkpoint.preprocessing.to_dict()}


def _run(found: str, spec: RelabelSpec, old: Identity) -> RunSpec:
    """The run that would have written the rows, in what makes up its identity."""
    return RunSpec(
        inputs=InputSpec(uris=(spec.source,)),
        model=ModelSpec(
            source=found,
            dtype=cast(Dtype, old.dtype),
            decode=cast(DecodeMode, old.preprocessing["decode"]),
        ),
        output=OutputSpec(
            uri=spec.output,
            top_k=spec.top_k or old.top_k or DEFAULT_TOP_K,
            scores=spec.scores,
            thresholds=spec.thresholds,
            embeddings=True,
        ),
    )


def _check(checkpoint: Checkpoint, found: str, old: Identity, rows: str) -> None:
    """Refuse a model that would compute other embeddings than those stored."""
    training = training_of(found)
    if training is None or training.weights_sha256 != checkpoint.weights_sha256:
        raise UsageError(
            f"<relabel.model> {found} is not as fine-tuning has published it; for any other "
            "linear classifier there is <relabel.head>"
        )
    if old.weights_sha256 not in training.same_backbone:
        raise UsageError(
            f"<relabel.model> {found} was not trained on the backbone of {rows}: its embeddings "
            f"are those of weights {old.weights_sha256[:12]}, the model's parent has "
            f"{training.parent_weights_sha256[:12]}; run the job with the model instead"
        )
    if not sees_alike(checkpoint, old):
        raise UsageError(
            f"<relabel.model> {found} has another preprocessing or activation than the rows of "
            f"{rows}; run the job with the model instead"
        )
    if "halffloat" in (old.embedding or ""):
        raise UsageError(
            f"the embeddings of {rows} are stored as float16, and scores from them would only be "
            "near those of a run with <relabel.model>; run the job with the model instead"
        )
