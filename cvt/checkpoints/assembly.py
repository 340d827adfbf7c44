"""A model made of weights, with what they lack made new."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

import torch
from torch import nn

from cvt.checkpoints.files import State
from cvt.checkpoints.layouts import Layout, rename, with_prefix
from cvt.checkpoints.mismatch import Anatomy, explain_mismatch, explain_size
from cvt.checkpoints.tensors import check_numbers, check_stored
from cvt.config import CvtConfig
from cvt.errors import CheckpointError

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)

_TAIL: Final = ("norm", "head")  # what a base model lacks


def assemble(
    kind: Callable[[CvtConfig], M],
    config: CvtConfig,
    state: State,
    layout: Layout,
    source: str,
    *,
    renew: bool = False,
) -> M:
    """A model with these weights; a norm or head that they lack is new, and the log says so.

    With ``renew`` all weights are new that have another size.

    Raises:
        CheckpointError: the weights do not fit; the message names ``source``.
    """
    if problem := explain_size(Anatomy.of(state), config):
        raise CheckpointError(f"{source} does not fit its configuration: {problem}")
    with torch.device("meta"):
        model = kind(config)
    own = model.state_dict()
    own_names = {with_prefix(name): name for name in own}
    shapes = {full: tuple(own[name].shape) for full, name in own_names.items()}
    fresh = _missing_tail(shapes, state) | (_of_other_size(shapes, state) if renew else set())
    state = {n: t for n, t in state.items() if n in shapes or module_of(n) not in _TAIL}
    state = {n: t for n, t in state.items() if n not in fresh}
    expected = {name: shape for name, shape in shapes.items() if name not in fresh}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if problem := explain_mismatch(found, expected, Anatomy.of(state), config, layout):
        raise CheckpointError(f"{source} does not fit its configuration: {problem}")
    if fresh:
        what, count = _listed(fresh), config.num_labels
        logger.warning("%s: %s new, for %d labels: train first", source, what, count)
    shown = {name: rename(name, "ours", layout) for name in state}
    check_stored({shown[name]: tensor for name, tensor in state.items()}, source)
    copies = {own_names[name]: _copy(t, own[own_names[name]].dtype) for name, t in state.items()}
    check_numbers({shown[name]: copies[own_names[name]] for name in state}, source)
    model = kind(config) if fresh else model
    model.load_state_dict(copies, strict=not fresh, assign=True)
    return model


def module_of(name: str) -> str:
    """The outermost module of a weight under our names."""
    return name.partition(".")[0]


def _missing_tail(shapes: Collection[str], state: State) -> set[str]:
    """What a backbone's weights lack. A trained head needs its norm as it was."""
    present = set(map(module_of, state))
    present |= {"norm"} if "head" in present else set()
    return {name for name in shapes if module_of(name) in _TAIL and module_of(name) not in present}


def _of_other_size(shapes: Mapping[str, tuple[int, ...]], state: State) -> set[str]:
    return {n for n, shape in shapes.items() if n in state and tuple(state[n].shape) != shape}


def _listed(fresh: set[str]) -> str:
    """Names for the log: of modules behind the backbone, else of weights, the first few."""
    names = sorted({module_of(name) if module_of(name) in _TAIL else name for name in fresh})
    return " and ".join([*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])])


def _copy(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype=dtype, memory_format=torch.contiguous_format, copy=True)
