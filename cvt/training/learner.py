"""A network that learns, step by step, and its state between two steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvt.layers.drop_path import DropPath
from cvt.model import CvtForImageClassification
from cvt.training.average import Average
from cvt.training.optimizer import make_optimizer, make_schedule, parameter_groups
from cvt.training.pictures.mixup import Blend
from cvt.training.recipe import Portion, Recipe


class Learner:
    """A network with its optimizer and schedule.

    Whatever a step draws at random depends on the seed and the step alone, so that a learner that
    takes up a ``state`` goes on as if it had never stopped, and several workers drop the paths of
    the same images as one. (Each draws the dropout of its own, which published CvTs have not.)
    """

    def __init__(self, model: CvtForImageClassification, recipe: Recipe, steps: int) -> None:
        """Freeze what the recipe says.

        Args:
            steps: of the whole training.
        """
        self.model, self.recipe = model, recipe
        model.backbone.freeze(recipe.frozen_stages)
        groups = parameter_groups(
            model, recipe.learning_rate, recipe.weight_decay, recipe.layer_decay
        )
        self.optimizer = make_optimizer(groups)
        self.schedule = make_schedule(self.optimizer, steps, recipe.warmup_share)
        self.network: nn.Module = model
        """What is called: the model, or what wraps it for several workers."""
        self.average = Average(model, recipe.ema) if recipe.ema else None
        self.step_number = 0
        device = next(model.parameters()).device
        self._class_weights = torch.tensor(recipe.class_weights, device=device)
        self._absent_weights = torch.tensor(recipe.absent_weights, device=device)

    @property
    def learned(self) -> CvtForImageClassification:
        """The model that the training is for: with the average of its weights, if there is one."""
        return self.average.model if self.average else self.model

    def step(self, images: Tensor, targets: Tensor, portion: Portion | None = None) -> float:
        """Learn from normalised images (B, 3, S, S) of classes (B,), or if the model is one for
        several labels, (B, N), 1 where a class is there and else 0; returns their mean loss, each
        counted by the weight of its class: with mixup, that of blended images.

        Args:
            portion: what these images are of those of the step, unless they are all.
        """
        portion = portion or Portion(len(images))
        training_mode(self.model, frozen_statistics=self.recipe.frozen_statistics)
        seed, step = self.recipe.seed, self.step_number
        _take_part(self.model, portion)
        torch.manual_seed(_mixed(seed, step))
        blend = Blend.draw(self.recipe.mixup, seed, step, portion.rank)
        logits = self.network(blend.images(images)).logits
        loss = blend.loss(partial(self._loss, logits), targets)
        self.optimizer.zero_grad()
        (loss * portion.weight).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.take_in(self.model, self.step_number)
        self.step_number += 1
        return float(loss.detach())

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of a batch, divided by its images and not, as PyTorch's weighted mean, by their weights:
        so several workers find what one does, and a batch of rare classes counts more."""
        if self.model.config.problem_type == "multi_label_classification":
            return self._loss_of_sets(logits, targets.to(logits.dtype))
        smoothing = self.recipe.smoothing
        if not self.recipe.class_weights:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        each = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return (each * self._class_weights[targets]).mean()

    def _loss_of_sets(self, logits: Tensor, present: Tensor) -> Tensor:
        """Binary cross entropy over images and classes."""
        each = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
        if self.recipe.class_weights:
            each = each * torch.where(present > 0, self._class_weights, self._absent_weights)
        return each.mean()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.step_number,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average and self.average.model.state_dict(),
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        self.step_number = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average:
            self.average.model.load_state_dict(state["average"])


def training_mode(model: nn.Module, *, frozen_statistics: bool) -> None:
    """Like ``train()``; with frozen statistics, BatchNorm uses those it has and learns no others.

    Those of a small batch are noise, and every worker would have its own.
    """
    model.train()
    if frozen_statistics:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _take_part(model: nn.Module, portion: Portion) -> None:
    """Have paths dropped as for all images of the step."""
    part = portion.images, torch.from_numpy(portion.places)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.part = part if portion.workers > 1 else None


def _mixed(seed: int, step: int) -> int:
    """One seed of two numbers."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)
