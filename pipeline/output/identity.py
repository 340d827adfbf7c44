"""What makes two runs' numbers comparable: the identity of model, preprocessing and arithmetic."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.contract.errors import UsageError


def short_hash(text: str | bytes) -> str:
    """16 hex digits of SHA-256."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the numbers of a run come from. Two runs whose numbers may stand in one table have
    equal fingerprints; ``model`` is only a name and does not count."""

    model: str
    weights_sha256: str
    activation: str
    preprocessing: dict[str, Any]
    pooling: str
    normalize: bool
    dtype: str

    @property
    def fingerprint(self) -> str:
        """Short SHA-256 over everything that changes the numbers."""
        fields = dataclasses.asdict(self)
        del fields["model"]
        return short_hash(json.dumps(fields, sort_keys=True))

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "fingerprint": self.fingerprint}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """``name: theirs -> ours`` for every entry that differs; nested dicts by dotted name."""
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            lines += [f"{name}.{line}" for line in differences(mine, other)]
        elif mine != other:
            lines.append(f"{name}: {other} -> {mine}")
    return lines


def check_identity(ours: dict[str, Any], theirs: dict[str, Any], whose: str, advice: str) -> None:
    """Raise a UsageError that shows what differs, ``theirs -> ours``."""
    lines = differences(ours, theirs)
    if lines:
        raise UsageError(f"this run differs from {whose} ({'; '.join(lines)}); {advice}")
