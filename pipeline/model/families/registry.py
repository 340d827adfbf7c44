"""Which families of networks there are, and which of them a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import ModelSpec
from pipeline.model.checkpoint_files import open_checkpoint
from pipeline.model.families import cvt
from pipeline.model.network import Checkpoint


@dataclass(frozen=True)
class Family:
    """A kind of network that a run can use."""

    name: str
    load: Callable[[ModelSpec], Checkpoint]
    """Raises a UsageError if it cannot be read, or cannot compute as the spec asks."""
    claims: Callable[[Mapping[str, Any]], bool]
    """Whether a checkpoint with this ``config.json``, which may lack any key, is of the family."""


FAMILIES: tuple[Family, ...] = (Family("cvt", cvt.load, cvt.claims),)
"""The first one takes checkpoints that none of them claims."""


def load_checkpoint(spec: ModelSpec) -> Checkpoint:
    """Read weights and preprocessing, by the family that they belong to.

    Raises:
        UsageError: they cannot be read.
    """
    return _family_of(spec.source).load(spec)


def _family_of(source: str) -> Family:
    if len(FAMILIES) == 1:  # nothing to choose, and a config.json may lie behind a network
        return FAMILIES[0]
    try:
        with open_checkpoint(source) as files:
            config = files.json("config.json") or {}
    except (ValueError, OSError) as error:
        raise UsageError(f"cannot load the model: {one_line(error)}") from error
    return next((family for family in FAMILIES if family.claims(config)), FAMILIES[0])
