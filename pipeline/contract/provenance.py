"""Where the numbers of a run come from, and what must agree for rows to share a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.contract.records import Record, omitted


@dataclass(frozen=True, kw_only=True)
class Provenance(Record):
    """Where the numbers of a run come from. Two runs whose numbers may share a table have equal
    fingerprints; ``model`` is only a name and does not count."""

    model: str = ""
    weights_sha256: str = ""
    activation: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = ""
    normalize: bool = False
    dtype: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class Identity(Record):
    """What must agree between runs whose rows share a table: the origin of the numbers, and the
    columns."""

    weights_sha256: str = ""
    activation: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = ""
    normalize: bool = False
    dtype: str = ""
    fingerprint: str = ""
    classes_sha256: str = ""
    scores: str | None = None
    """softmax, sigmoid or logits; None without labels."""
    top_k: int | None = None
    thresholds: tuple[float, ...] = ()
    """One per class; empty without a column ``labels``, or where labels were only renamed."""
    embedding: str | None = None
    """The Arrow type of the column, None without one."""
    kept: Mapping[str, str] | None = omitted()
    """Columns of the input that are carried along, by their Arrow types."""
    relabelled: tuple[Mapping[str, str | None], ...] | None = omitted()
    """What was done to the labels since they were computed, step by step."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """What must also agree according to another version, so that no version overlooks it."""
