"""Models that were trained here: which one of a directory is the newest, and what each came from.

MODELS/
  latest.json                     {"model": "models/<run_id>"}, written last
  models/<run_id>/training.json   beside config.json and the weights
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError, UsageError
from pipeline.contract.records import Record, omitted
from pipeline.contract.spec import ModelSpec
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical

_MODEL = re.compile(rf"{layout.MODELS}/[\w-]+", re.ASCII)
_FILE = re.compile(r".*\.(safetensors|bin|pth|pt|h5|json|npz)", re.IGNORECASE)
R = TypeVar("R", bound=Record)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatestModel(Record):
    """``latest.json`` of a directory of models. That of an output names no model."""

    model: str | None = omitted()


@dataclass(frozen=True, kw_only=True)
class Training(Record):
    """``training.json``: what a model was made of."""

    run_id: str = ""
    trained: str = ""
    """What was trained; for "head", the backbone is that of the parent."""
    parent: str = ""
    """Where it was read from; only a name."""
    parent_weights_sha256: str = ""
    weights_sha256: str = ""
    backbone_sha256: str = ""
    same_backbone: tuple[str, ...] = ()
    """The ``weights_sha256`` of this model's ancestors of the same backbone, and its own: rows of
    any of them have the embeddings that this model computes."""
    data: str = ""
    """The fingerprint of images, labels and embeddings."""
    images: Mapping[str, int] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: str = ""


def newest(spec: ModelSpec) -> ModelSpec:
    """The model that is meant: if its source is a directory of models, the newest one there."""
    found = newest_model(spec.source)
    if found == spec.source:
        return spec
    log.info("%s: the newest model there is %s", spec.source, found)
    return replace(spec, source=found)


def newest_model(source: str) -> str:
    """The source itself, or if it is a directory of models, the newest model there.

    Raises:
        UsageError: its latest.json names something else.
    """
    latest = _beside(LatestModel, source, layout.LATEST)
    if latest is None or latest.model is None:
        return source
    if not _MODEL.fullmatch(latest.model):
        raise UsageError(
            f"{source}/{layout.LATEST} names {latest.model!r}, which is no model there; name one "
            f"of {source}/{layout.MODELS}/ instead"
        )
    return f"{source.rstrip('/')}/{latest.model}"


def training_of(source: str) -> Training | None:
    """What a model of the pipeline says of itself; None for other checkpoints."""
    return _beside(Training, source, layout.TRAINING)


def _beside(kind: type[R], source: str, name: str) -> R | None:
    """A file in a directory of models, or in a model; None where there is none, or no directory.

    Whatever else is wrong with the source, who loads the model says.
    """
    if _FILE.fullmatch(source.partition("?")[0]):
        return None
    try:
        return Store(canonical(source)).read_record(kind, name)
    except DamagedFileError as error:
        raise UsageError(f"cannot load the model: {error}") from error
    except (*STORAGE_ERRORS, UsageError, ValueError):
        return None
