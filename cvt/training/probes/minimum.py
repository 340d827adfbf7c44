"""Where a convex objective of embeddings is least, by Newton's method.

The solution is unique, and nothing in it is random: the same rows give the same classifier.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Matrix = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

_MAX_STEPS: Final = 200
_MAX_DIRECTIONS: Final = 2000
"""Of the conjugate gradients of one step."""
_MAX_HALVINGS: Final = 40
_DECREASE: Final = 1e-4
"""The part of the promised decrease that a step must bring; the usual one (Armijo's)."""
_ROUNDING: Final = 1e-14
"""Of the objective: near the solution it decreases by less than it is rounded."""
_GRADIENT: Final = 1e-8
"""The largest entry of the mean gradient at which the fit ends; probabilities are good to 1e-5."""
_SMALL: Final = 2**26
"""Multiplications of a step that one thread does in some hundredths of a second."""
_CELLS: Final = 2**23
"""Logits at a time, so that a large table of labels needs no larger one of logits."""


@dataclass(frozen=True)
class Objective(ABC):
    """A mean loss, and the penalty, of a classifier (N, C + 1) whose last column is the bias."""

    rows: Tensor
    """(R, C + 1): embeddings, and a one for the bias."""
    targets: Tensor
    shares: Tensor
    """(R, ...): what each row counts in the mean."""
    penalty: Tensor
    """(C + 1,): of the squared weights of each dimension, halved."""

    def value(self, found: Tensor) -> Tensor:
        """Of a classifier."""
        total = (self.penalty * found.square()).sum() / 2
        for x, y, share in self._chunks(len(found)):
            total += self.loss(x @ found.T, y, share)
        return total

    def gradient(self, found: Tensor) -> Tensor:
        """The first derivative."""
        total = self.penalty * found
        for x, y, share in self._chunks(len(found)):
            total += self.slope(x @ found.T, y, share).T @ x
        return total

    def curvature(self, found: Tensor, direction: Tensor) -> Tensor:
        """The second derivative times a direction: how the gradient changes along it."""
        total = self.penalty * direction
        for x, _, share in self._chunks(len(found)):
            total += self.bend(x @ found.T, x @ direction.T, share).T @ x
        return total

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """Of some rows, with logits (r, N): the sum of what they add to the mean."""

    @abstractmethod
    def slope(self, logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """(r, N): its derivative by the logits."""

    @abstractmethod
    def bend(self, logits: Tensor, along: Tensor, shares: Tensor) -> Tensor:
        """(r, N): how that changes when the logits change by ``along`` (r, N)."""

    def _chunks(self, classes: int) -> Iterator[tuple[Tensor, ...]]:
        """Rows, targets and shares, in pieces."""
        chunk = max(_CELLS // classes, 1)
        parts = (of.split(chunk) for of in (self.rows, self.targets, self.shares))
        return zip(*parts, strict=True)


def fitted(
    kind: type[Objective],
    vectors: npt.NDArray[np.floating],
    targets: npt.NDArray[np.generic],
    counts: Matrix,
    l2: float,
    classes: int,
) -> tuple[Matrix, Matrix]:
    """The weight and the bias at which an objective of standardised embeddings is least."""
    rows = np.asarray(vectors, np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1.0  # a dimension that never varies says nothing, and gets nothing
    scaled = np.column_stack([(rows - mean) / deviation, np.ones(len(rows))])
    penalty = np.append(np.full(len(mean), l2), 0.0)
    arrays = (scaled, targets, counts / len(rows), penalty / len(rows))
    with _threads(scaled.size * classes):
        found = _minimise(kind(*map(torch.from_numpy, arrays)), classes).numpy()
    unscaled = found[:, :-1] / deviation
    return unscaled, found[:, -1] - unscaled @ mean


def _minimise(objective: Objective, classes: int) -> Tensor:
    """(N, C + 1), by Newton's method with inexact steps (Nocedal and Wright, Numerical
    Optimization, algorithm 7.1): embeddings lie in few directions, along which a descent that does
    not know the curvature crawls."""
    found = objective.rows.new_zeros(classes, objective.rows.shape[1])
    for _ in range(_MAX_STEPS):
        gradient = objective.gradient(found)
        if gradient.abs().max() <= _GRADIENT:
            break
        step = _newton_step(objective, found, gradient)
        found = found + _shortened(objective, found, gradient, step)
    return found


def _newton_step(objective: Objective, found: Tensor, gradient: Tensor) -> Tensor:
    """To where the gradient would vanish, by conjugate gradients: roughly far from the solution,
    and ever more precisely near it."""
    norm = float(gradient.norm())
    enough = min(0.1, norm**0.5) * norm
    step, residual = torch.zeros_like(gradient), -gradient
    direction = residual
    for _ in range(_MAX_DIRECTIONS):
        left = residual.square().sum()
        if left.sqrt() <= enough:
            break
        curved = objective.curvature(found, direction)
        length = left / (direction * curved).sum()
        step, residual = step + length * direction, residual - length * curved
        direction = residual + residual.square().sum() / left * direction
    return step


def _shortened(objective: Objective, found: Tensor, gradient: Tensor, step: Tensor) -> Tensor:
    """A step, halved until the objective falls by a part of what the gradient promises."""
    before, promised = objective.value(found), (gradient * step).sum()
    for _ in range(_MAX_HALVINGS):
        if objective.value(found + step) <= before + _DECREASE * promised + _ROUNDING * before:
            break
        step, promised = step / 2, promised / 2
    return step


@contextmanager
def _threads(products: int) -> Iterator[None]:
    """One thread for small products: several would mostly wait for each other, on a busy machine
    for ten times as long as it takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
