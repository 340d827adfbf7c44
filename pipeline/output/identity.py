"""What makes two runs' numbers comparable: the identity of model, preprocessing and arithmetic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.contract.errors import UsageError
from pipeline.contract.provenance import Identity, Provenance


def short_hash(text: str | bytes) -> str:
    """16 hex digits of SHA-256."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:16]


def fingerprinted(provenance: Provenance) -> Provenance:
    """The provenance with its fingerprint: a hash over everything that changes the numbers."""
    fields = provenance.to_dict()
    del fields["model"], fields["fingerprint"]
    return replace(provenance, fingerprint=short_hash(json.dumps(fields, sort_keys=True)))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """``name: theirs -> ours`` for every entry that differs; nested ones by dotted name."""
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            lines += [f"{name}.{line}" for line in differences(mine, other)]
        elif mine != other:
            lines.append(f"{name}: {other} -> {mine}")
    return lines


def check_identity(ours: Identity, theirs: Identity, whose: str, advice: str) -> None:
    """Refuse to go on if two identities differ.

    Raises:
        UsageError: they do; the message shows ``theirs -> ours`` for each difference.
    """
    check_same(ours.to_dict(), theirs.to_dict(), whose, advice)


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], whose: str, advice: str) -> None:
    """``check_identity`` for anything in the form of an identity's ``to_dict``."""
    lines = differences(ours, theirs)
    if lines:
        raise UsageError(f"this run differs from {whose} ({'; '.join(lines)}); {advice}")
