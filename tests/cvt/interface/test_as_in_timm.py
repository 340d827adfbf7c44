"""What users of timm expect of a classifier. The meaning of the patterns is that of timm 1.0."""

import re
from collections import defaultdict
from itertools import chain

import pytest
import torch

from cvt import CvtConfig, CvtForImageClassification
from tests.support.models.oracle import SMALL, images, randomise

X = images(2, 32, 48)


def build(**fields: object) -> CvtForImageClassification:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL | fields)).eval()
    randomise(model, seed=0)
    return model


@pytest.mark.parametrize("cls_token", [[False, False, True], [False] * 3])
def test_features_then_head_are_the_model(cls_token: list[bool]) -> None:
    model = build(cls_token=cls_token)
    out, features = model(X), model.forward_features(X)
    assert features.shape == (2, 2 * 3 + cls_token[-1], 48)
    assert torch.allclose(model.forward_head(features), out.logits, atol=1e-6)
    assert torch.allclose(model.forward_head(features, pre_logits=True), out.embedding, atol=1e-6)


def test_a_new_head() -> None:
    model = build().bfloat16()
    before, embedding = model.get_classifier(), model(X).embedding
    model.reset_classifier(4)
    assert model.get_classifier() is model.head is not before
    weight = model.get_parameter("head.weight")
    assert weight.dtype == torch.bfloat16
    assert weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert model(X).logits.shape == (2, 4)
    assert torch.equal(model(X).embedding, embedding)
    assert model.num_classes == model.config.num_labels == model.backbone.config.num_labels == 4
    model.reset_classifier(0)
    assert torch.equal(model(X).logits, embedding)
    assert (model.num_classes, model.num_features) == (0, 48)
    with pytest.raises(ValueError, match="class token, and not 'avg'"):
        model.reset_classifier(4, "avg")


def test_a_new_head_leaves_models_of_the_same_configuration_alone() -> None:
    config = CvtConfig.from_dict(SMALL)
    first, second = (CvtForImageClassification(config) for _ in range(2))
    first.reset_classifier(4)
    assert second.config.num_labels == config.num_labels == 7


def test_only_class_tokens_are_named_as_undecayed() -> None:
    assert build().no_weight_decay() == {"backbone.stages.2.cls_token"}


def depths(model: CvtForImageClassification, *, coarse: bool) -> dict[str, int]:
    """The number of each weight's layer, counted as timm's layer-wise decay does."""
    keys = defaultdict(list)
    patterns = []
    for i, spec in enumerate(model.group_matcher(coarse=coarse).values()):
        several = spec if isinstance(spec, list) else [(spec, None)]
        patterns += [(re.compile(pattern), i, suffix or ()) for pattern, suffix in several]
    for name, _ in model.named_parameters():
        found = ((p.match(name), i, suffix) for p, i, suffix in patterns)
        match, i, suffix = next(((m, i, s) for m, i, s in found if m), (None, 0, ()))
        key = (i, *chain(match.groups(), suffix)) if match else ("inf",)
        keys[tuple(map(float, key))].append(name)
    number, numbers = -1, dict[str, int]()
    for key in sorted(keys):
        number += key[-1] != 99999
        numbers |= dict.fromkeys(keys[key], number)
    return numbers


def test_layers_are_numbered_from_the_image_to_the_head() -> None:
    found = depths(build(depth=[1, 2, 3]), coarse=False)
    assert found["backbone.stages.0.embed.conv.weight"] == 0
    for number, block in enumerate(["0.blocks.0", "1.blocks.0", "1.blocks.1", "2.blocks.0"]):
        assert found[f"backbone.stages.{block}.mlp.fc1.weight"] == number + 1
    assert found["backbone.stages.1.embed.norm.bias"] == 2
    assert found["backbone.stages.2.cls_token"] == 4
    assert found["norm.weight"] == found["backbone.stages.2.blocks.2.norm1.bias"] == 6
    assert found["head.weight"] == 7
    assert depths(build(), coarse=True)["head.bias"] == 4


def test_checkpointing_switches() -> None:
    model = build()
    model.set_grad_checkpointing()
    assert all(stage.gradient_checkpointing for stage in model.backbone.stages)
    model.set_grad_checkpointing(False)
    assert not model.is_gradient_checkpointing
