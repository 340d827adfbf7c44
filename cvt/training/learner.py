"""A network that learns, step by step: what it is taught, how, and its state between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvt.model import CvtForImageClassification
from cvt.training.augment import Augment
from cvt.training.optimizer import make_optimizer, make_schedule, parameter_groups

LIVE_FROM: Final = 32
"""Images that a worker has at a time, from which on BatchNorm learns their statistics."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is taught."""

    epochs: int = 10
    """Passes over the images."""
    batch_size: int = 64
    """Images per step, over all workers."""
    learning_rate: float = 3e-4
    """The peak, of the head."""
    layer_decay: float = 1.0
    """What the rate is multiplied by for every layer below the head."""
    weight_decay: float = 0.05
    """On matrices and kernels."""
    warmup_share: float = 0.1
    """Of all steps, those in which the rate rises."""
    smoothing: float = 0.1
    """Probability that the targets spread over all classes."""
    clip: float = 1.0
    """The longest gradient, as a 2-norm over all parameters."""
    augment: Augment = "light"
    frozen_stages: int = 0
    """The first stages, which stay as they are."""
    frozen_statistics: bool = True
    """Whether BatchNorm keeps the statistics that it has; its scales learn all the same."""
    seed: int = 0
    """Of order, views and dropping."""


def batches(count: int, recipe: Recipe, epoch: int, workers: int = 1) -> list[npt.NDArray[Any]]:
    """Which images each step of an epoch shows, (b,) each, in an order of its own.

    The last one holds what is left, unless that is less than an image for every worker.
    """
    order = np.random.default_rng((recipe.seed, epoch)).permutation(count)
    pieces = [order[at : at + recipe.batch_size] for at in range(0, count, recipe.batch_size)]
    return [piece for piece in pieces if len(piece) >= workers]


class Learner:
    """A network with its optimizer and schedule.

    Whatever a step draws at random depends on the seed, the step and the rank alone, so that a
    learner that takes up a ``state`` goes on as if it had never stopped.
    """

    def __init__(
        self, model: CvtForImageClassification, recipe: Recipe, steps: int, rank: int = 0
    ) -> None:
        """Freeze what the recipe says.

        Args:
            steps: of the whole training.
            rank: of this worker.
        """
        self.model, self.recipe, self.rank = model, recipe, rank
        model.backbone.freeze(recipe.frozen_stages)
        groups = parameter_groups(
            model, recipe.learning_rate, recipe.weight_decay, recipe.layer_decay
        )
        self.optimizer = make_optimizer(groups)
        self.schedule = make_schedule(self.optimizer, steps, recipe.warmup_share)
        self.network: nn.Module = model
        """What is called: the model, or what wraps it for several workers."""
        self.step_number = 0

    def step(self, images: Tensor, targets: Tensor, share: float = 1.0) -> float:
        """Learn from normalised images (B, 3, S, S) of classes (B,); returns their mean loss.

        Args:
            share: how much more than their mean these images count, when several workers average
                what they found on unequally many.
        """
        training_mode(self.model, frozen_statistics=self.recipe.frozen_statistics)
        torch.manual_seed(_mixed(self.recipe.seed, self.step_number, self.rank))
        logits = self.network(images).logits
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.smoothing)
        self.optimizer.zero_grad()
        (loss * share).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        self.step_number += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.step_number,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        self.step_number = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def training_mode(model: nn.Module, *, frozen_statistics: bool) -> None:
    """Like ``train()``; with frozen statistics, BatchNorm uses those it has and learns no others.

    Those of a small batch are noise, and every worker would have its own.
    """
    model.train()
    if frozen_statistics:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _mixed(seed: int, step: int, rank: int) -> int:
    """One seed of three numbers."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1)
