"""Blended images: how much of which, and what they cost."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

from cvt.training.pictures.mixup import Blend

TARGETS = torch.tensor([0, 2, 2, 1, 3])
ONE_HOT = F.one_hot(TARGETS, 4).double()


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_image_is_blended_with_the_one_before_it(share: float) -> None:
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = Blend(share).images(images).numpy()
    for n in range(5):
        expected = share * images[n].numpy() + (1 - share) * images[n - 1].numpy()
        assert np.allclose(found[n], expected, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_probabilities_as_targets(
    logits: Tensor, share: float, smoothing: float
) -> None:
    soft = share * ONE_HOT + (1 - share) * ONE_HOT.roll(1, 0)
    of: Callable[[Tensor], Tensor] = partial(F.cross_entropy, logits, label_smoothing=smoothing)
    expected = F.cross_entropy(logits, soft, label_smoothing=smoothing)
    assert float(Blend(share).loss(of, TARGETS)) == pytest.approx(float(expected), rel=1e-12)


def test_shares_are_those_of_a_beta_distribution() -> None:
    for alpha in (0.2, 1.0, 4.0):
        found = [Blend.draw(alpha, 0, step, 0).share for step in range(4000)]
        assert 0 <= min(found) < max(found) <= 1
        assert np.mean(found) == pytest.approx(0.5, abs=0.02)
        assert np.var(found) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_a_share_depends_on_seed_step_and_rank_alone() -> None:
    def share(seed: int, step: int, rank: int) -> float:
        return Blend.draw(0.2, seed, step, rank).share

    assert share(1, 2, 3) == share(1, 2, 3)
    assert len({share(1, 2, 3), share(2, 2, 3), share(1, 3, 3), share(1, 2, 4)}) == 4
    assert Blend.draw(0.0, 1, 2, 3) == Blend(1.0)
