"""Averaged weights: those of PyTorch's AveragedModel, with a decay that rises."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cvt import CvtConfig, CvtForImageClassification
from cvt.training.average import Average, decay_after
from cvt.training.learner import Learner
from cvt.training.recipe import Recipe
from tests.support.models.oracle import SMALL, images

RECIPE = Recipe(ema=0.7, learning_rate=1e-2, frozen_statistics=False)
STEPS = 40
X, TARGETS = images(14, 24, 24), torch.arange(14) % 7


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(3)
    return Learner(CvtForImageClassification(CvtConfig.from_dict(SMALL)), RECIPE, STEPS)


def rising(averaged: Any, latest: Any, count: Any) -> None:
    get_ema_multi_avg_fn(min(0.7, float(count) / (float(count) + 9)))(averaged, latest, count)


def bias_of(model: CvtForImageClassification) -> Tensor:
    return model.get_parameter("head.bias")


def floats(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: v for name, v in model.state_dict().items() if v.is_floating_point()}


def test_it_is_the_average_that_pytorch_finds(learner: Learner) -> None:
    """Of weights and BatchNorm's statistics, from the first step to far behind the warm-up."""
    theirs = AveragedModel(learner.model, multi_avg_fn=rising, use_buffers=True)
    for step in range(STEPS):
        learner.step(X, TARGETS)
        theirs.update_parameters(learner.model)
        if step in (0, 1, 20, STEPS - 1):
            ours, expected = floats(learner.learned), floats(theirs.module)
            assert ours.keys() == expected.keys()
            for name, value in ours.items():
                assert torch.allclose(value, expected[name], rtol=1e-5, atol=1e-7), name
    latest = floats(learner.model)
    apart = {n for n, v in floats(learner.learned).items() if not torch.equal(v, latest[n])}
    assert "head.weight" in apart
    assert any(name.endswith("running_var") for name in apart)


def test_it_is_a_sum_in_which_late_steps_count_more() -> None:
    """In float64, by the formula written out; PyTorch's has no part in it."""
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL)).double()
    average, kept, values = Average(model, 0.7), list[float](), list[float]()
    for step in range(STEPS):
        torch.nn.init.constant_(bias_of(model), step**2)
        values.append(float(step**2))
        kept = [share * decay_after(step, 0.7) for share in kept]
        kept.append(1 - decay_after(step, 0.7))
        average.take_in(model, step)
    assert sum(kept) == pytest.approx(1)
    expected = sum(share * value for share, value in zip(kept, values, strict=True))
    assert bias_of(average.model).tolist() == pytest.approx([expected] * 7, rel=1e-12)


def test_the_decay_rises_to_what_was_asked_for() -> None:
    found = [decay_after(steps, 0.99) for steps in range(2000)]
    assert found[:3] == [0, 0.1, 2 / 11]
    assert found == sorted(found)
    assert found[-1] == 0.99
    assert decay_after(10**6, 0.0) == 0


def test_a_short_training_forgets_where_it_began() -> None:
    """With a fixed decay of 0.999, 97 % of an average of 30 steps would be its start."""
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL))
    torch.nn.init.zeros_(bias_of(model))
    average = Average(model, 0.999)
    for step in range(30):
        torch.nn.init.constant_(bias_of(model), step + 1.0)
        average.take_in(model, step)
    assert 25 < float(bias_of(average.model)[0]) < 30


def test_counters_are_taken_over(learner: Learner) -> None:
    for _ in range(3):
        learner.step(X, TARGETS)
    counts = {int(v) for n, v in learner.learned.state_dict().items() if n.endswith("tracked")}
    assert counts == {3}


def test_the_training_itself_is_none_the_wiser(learner: Learner) -> None:
    plain = Learner(copy.deepcopy(learner.model), Recipe(**vars(RECIPE) | {"ema": 0.0}), STEPS)
    assert plain.learned is plain.model
    assert [learner.step(X, TARGETS) for _ in range(3)] == [
        plain.step(X, TARGETS) for _ in range(3)
    ]
    ours, other = learner.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], other[name]) for name in ours)
    assert not any(p.requires_grad for p in learner.learned.parameters())
    assert not learner.learned.training
