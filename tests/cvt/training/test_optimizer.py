"""Groups of parameters, and the course of the rate."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from cvt import CvtConfig, CvtForImageClassification
from cvt.layers.blocks import Stage
from cvt.training.optimizer import layer_of, make_schedule, parameter_groups, warmup_cosine
from tests.support.models.oracle import SMALL


@pytest.fixture(scope="module")
def model() -> CvtForImageClassification:
    return CvtForImageClassification(CvtConfig.from_dict(SMALL))


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_each_parameter_is_in_one_group(
    model: CvtForImageClassification, layer_decay: float
) -> None:
    groups = parameter_groups(model, 1e-3, 0.05, layer_decay)
    count = Counter(id(p) for group in groups for p in group["params"])
    assert count == {id(p): 1 for p in model.parameters()}
    assert all(len(group["params"]) == len(group["names"]) for group in groups)


def test_matrices_and_kernels_alone_are_decayed(model: CvtForImageClassification) -> None:
    groups = parameter_groups(model, 1e-3, 0.05)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    expected = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    assert decayed == expected
    tokens = [s.cls_token for s in model.modules() if isinstance(s, Stage)]
    assert any(token is not None for token in tokens)


def test_rates_fall_by_block_from_the_head_down(model: CvtForImageClassification) -> None:
    groups = parameter_groups(model, 1.0, 0.05, layer_decay=0.5)
    rates = {name: group["lr"] for group in groups for name in group["names"]}
    assert rates["head.weight"] == rates["norm.bias"] == 1.0
    assert rates["backbone.stages.2.blocks.2.mlp.fc1.weight"] == 0.5
    assert rates["backbone.stages.2.blocks.0.norm1.bias"] == 0.125
    assert rates["backbone.stages.2.cls_token"] == rates["backbone.stages.2.embed.conv.bias"]
    assert rates["backbone.stages.2.cls_token"] == 0.125
    assert rates["backbone.stages.0.embed.conv.weight"] == 0.5**6


def test_layers_count_over_the_stages() -> None:
    assert layer_of("backbone.stages.1.blocks.1.norm1.bias", (1, 2, 3)) == 2
    assert layer_of("backbone.stages.2.embed.norm.bias", (1, 2, 3)) == 3
    assert layer_of("head.bias", (1, 2, 3)) == 6


def test_what_is_frozen_is_in_no_group(model: CvtForImageClassification) -> None:
    other = CvtForImageClassification(model.config)
    other.backbone.freeze(2)
    names = {name for group in parameter_groups(other, 1e-3, 0.05) for name in group["names"]}
    assert names == {name for name, p in other.named_parameters() if p.requires_grad}
    assert not any(name.startswith("backbone.stages.1") for name in names)


def test_the_schedule_is_that_of_transformers_a_step_ahead() -> None:
    """Theirs wastes the first step on a rate of 0."""
    optimizer: Any = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, 5, 40).lr_lambdas[0]
    ours = warmup_cosine(40, 5)
    assert [ours(step) for step in range(5)] == pytest.approx(
        [theirs(step + 1) for step in range(5)]
    )
    assert [ours(step) for step in range(5, 40)] == pytest.approx(
        [theirs(step) for step in range(5, 40)]
    )


def test_a_warm_up_of_any_share(model: CvtForImageClassification) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2.0)
    schedule = make_schedule(optimizer, steps=1, warmup_share=0.1)
    assert schedule.get_last_lr() == [2.0]
