"""How a network is taught; the same for every family."""

from __future__ import annotations

from cvt.training.recipe import LIVE_FROM, Portion, Recipe, batches

__all__ = ["LIVE_FROM", "Portion", "Recipe", "batches"]
