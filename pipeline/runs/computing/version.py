"""Which model a run has, and what it means that the runs before it had another one."""

from __future__ import annotations

import logging

from pipeline.contract.provenance import Identity
from pipeline.contract.urls import public
from pipeline.model.training.published import training_of
from pipeline.output.ledger.history import CLOSED_ADVICE, History
from pipeline.storage.uris import printable

_SCORED = ("cls_norm", False)
"""Pooling and normalisation of the embeddings that a classifier takes."""

log = logging.getLogger(__name__)


def model_before(identity: Identity, history: History) -> str | None:
    """The model of the newest closed run, if it is another one than that of ``identity``."""
    newest = history.runs[0] if history.runs else None
    if newest is None or newest.identity.weights_sha256 == identity.weights_sha256:
        return None
    return newest.model.model or f"weights {newest.identity.weights_sha256[:12]}"


def say_version(source: str, identity: Identity, history: History) -> None:
    """Log which model the run has, if it was trained here, and whether the last run had it too."""
    if before := model_before(identity, history):
        log.warning("another model than in the last run: %s, which had %s", public(source), before)
    elif history.runs and training_of(source) is not None:
        log.info("model: %s, as in the last run", public(source))


def closed_advice(source: str, identity: Identity, history: History) -> str:
    """What to do if a run may not join the closed ones; if the model has changed, that is said, and
    how its labels are had without computing an image again."""
    before = model_before(identity, history)
    if before is None:
        return CLOSED_ADVICE
    name, out = printable(public(source)), history.store.uri
    advice = f"the model was {before} and is now {name}: {CLOSED_ADVICE}"
    if not _shares_embeddings(source, history.runs[0].identity):
        return advice
    return (
        f"{advice}; its backbone is that of the rows, so `cvt-relabel {out} --output NEW_OUT "
        f"--model {name}` gives them its labels without reading an image, and this command goes on "
        "with <output.uri> NEW_OUT"
    )


def _shares_embeddings(source: str, stored: Identity) -> bool:
    """Whether relabelling gives rows like the stored ones what a run with the model would."""
    training = training_of(source)
    return (
        training is not None
        and stored.weights_sha256 in training.same_backbone
        and (stored.pooling, stored.normalize) == _SCORED
        and stored.embedding is not None
        and "halffloat" not in stored.embedding
    )
