"""What training loops leave around a model's weights: wrappers' prefixes, and entries beside them.

torch.compile, DDP, FSDP, Lightning, DeepSpeed, accelerate, timm and moving averages each put the
same names somewhere else: ``state_dict.model._orig_mod.cvt.encoder...``. None of their conventions
is known here but the wrappers that may stand within a name; the place is found by the names of a
CvT themselves.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from cvt.checkpoints.layouts import is_backbone
from cvt.errors import CheckpointError

logger = logging.getLogger(__name__)

_WRAPPERS: Final = frozenset(
    {
        "module",
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
    }
)
_CONTAINERS: Final = _WRAPPERS | {"state_dict", "model"}
_AVERAGED: Final = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged|teacher|shadow)(?:[._]|$)")
_MAX_DEPTH: Final = 8
_MAX_NAME: Final = 1000
"""Characters of a name, and _MAX_PARTS parts before a weight's own; others are no one's weights."""
_MAX_PARTS: Final = 12


def flattened(content: Any) -> dict[str, Tensor]:
    """Every tensor in nested mappings, by the keys on the way to it, joined by dots.

    Lists, and mappings by number, are not looked into: what they hold has no name.
    """
    return dict(_tensors(content, "", _MAX_DEPTH, set()))


def _tensors(content: Any, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(content, Mapping) or id(content) in seen or not depth:
        return
    seen.add(id(content))
    for key, value in content.items():
        if not isinstance(key, str) or len(prefix) + len(key) > _MAX_NAME:
            continue
        name = f"{prefix}{key}"
        if torch.is_tensor(value):
            yield name, value.detach()
        else:
            yield from _tensors(value, f"{name}.", depth - 1, seen)


def unwrapped(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights of the CvT in ``state``, under its own names; all of ``state`` if there is none.

    Of several sets of weights the most complete counts, and of equal ones the moving average,
    which is what training meant for inference; the log says so.

    Raises:
        CheckpointError: two tensors have the same name.
    """
    places = {name: _place(name) for name in state}
    counts = Counter(place for place in places.values() if place is not None)
    if not counts:
        return _named_once(source, ((_without_containers(n), t) for n, t in state.items()))
    best = max(counts, key=lambda place: (counts[place], _is_averaged(place), -len(place)))
    others = sorted(place for place in counts if place != best)
    if others:
        left_out = ", ".join(repr(place) for place in others[:3])
        logger.warning("%s: takes the weights in %r, not those in %s", source, best, left_out)
    elsewhere = tuple(place for place in others if place.startswith(best))
    inside = (
        (_clean(name[len(best) :]), tensor)
        for name, tensor in state.items()
        if name.startswith(best) and not name.startswith(elsewhere)
    )
    return _named_once(source, ((n, t) for n, t in inside if not _is_counter(n, t)))


def _is_counter(name: str, tensor: Tensor) -> bool:
    """Of steps or epochs, beside the weights."""
    return "." not in name and tensor.numel() <= 1


def _named_once(source: str, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in weights:
        if name in found:
            raise CheckpointError(f"{source} holds two tensors named {name}: save one of them")
        found[name] = tensor
    return found


def _place(name: str) -> str | None:
    """What stands before the name of a backbone's weight; None if ``name`` is none."""
    parts = name.split(".")
    for i, part in enumerate(parts[:_MAX_PARTS]):
        if part not in _WRAPPERS and is_backbone(_clean(".".join(parts[i:]))):
            return "".join(f"{before}." for before in parts[:i])
    return None


def _is_averaged(place: str) -> bool:
    return _AVERAGED.search(place.lower()) is not None


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_containers(name: str) -> str:
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _CONTAINERS:
        del parts[0]
    return ".".join(parts)
