"""What can be had besides logits: maps by name, attention weights, embeddings."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cvt import CvtConfig, CvtForImageClassification
from tests.support.models.oracle import SMALL, Oracle, difference, images, relative_difference

X = images(2, 64, 90)
BLOCKS = ["stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1"]


@pytest.fixture
def model(small_dir: Path) -> CvtForImageClassification:
    return CvtForImageClassification.from_pretrained(small_dir)


def theirs(small: Oracle, name: str) -> torch.nn.Module:
    """transformers' layer for one of our blocks."""
    _, stage, _, block = name.split(".")
    layer: torch.nn.Module = small.cvt.encoder.stages[int(stage)].layers[int(block)]
    return layer


@torch.inference_mode()
def test_maps_of_blocks_equal_transformers_layers(
    small: Oracle, model: CvtForImageClassification
) -> None:
    outputs: dict[str, torch.Tensor] = {}
    for name in [*BLOCKS, "stages.2.blocks.1"]:
        theirs(small, name).register_forward_hook(
            lambda _, __, out, name=name: outputs.update({name: out})
        )
    small(X)
    maps = model.backbone.features(X, list(outputs))
    assert list(maps) == list(outputs)
    for name, tokens in outputs.items():
        patches = tokens[:, -maps[name].flatten(2).shape[2] :]  # without the class token
        assert relative_difference(maps[name].flatten(2).transpose(1, 2), patches) < 1e-5


@torch.inference_mode()
def test_maps_of_stages_are_the_hidden_states(model: CvtForImageClassification) -> None:
    states = model(X, output_hidden_states=True).hidden_states
    maps = model.backbone.features(X, ["stages.2", "stages.0"])
    assert states is not None
    assert list(maps) == ["stages.2", "stages.0"]
    assert torch.equal(maps["stages.0"], states[0])
    assert torch.equal(maps["stages.2"], states[2])


def test_stages_behind_the_last_name_are_not_run(model: CvtForImageClassification) -> None:
    model.backbone.stages[1].register_forward_hook(lambda *_: pytest.fail("stage 1 ran"))
    assert model.backbone.features(X, ["stages.0"])["stages.0"].shape == (2, 16, 16, 22)


def test_an_unknown_name_is_refused_with_the_known_ones(model: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match=r"'stages\.3': this model has stages\.0\.blocks\.0,"):
        model.backbone.features(X, ["stages.3"])


@torch.inference_mode()
def test_attention_weights_equal_transformers(
    small: Oracle, model: CvtForImageClassification
) -> None:
    weights: dict[str, torch.Tensor] = {}
    for name in [*BLOCKS, *(f"stages.2.blocks.{i}" for i in range(3))]:
        # What enters the dropout after the softmax.
        theirs(small, name).get_submodule("attention.attention.dropout").register_forward_hook(
            lambda _, args, __, name=name: weights.update({name: args[0]})
        )
    small(X)
    out = model(X, output_attentions=True)
    assert out.attentions is not None
    assert list(out.attentions) == list(weights)
    for name, expected in weights.items():
        assert difference(out.attentions[name], expected) < 1e-6
    assert difference(out.logits, model(X).logits) < 1e-5


@torch.inference_mode()
def test_embeddings_by_pooling(small: Oracle, model: CvtForImageClassification) -> None:
    expected = small.cvt(X, output_hidden_states=True)
    cls = expected.cls_token_value[:, 0]
    middle = expected.hidden_states[1].mean(dim=(2, 3))
    assert difference(model.embed(X), small.layernorm(cls)) < 1e-5
    assert relative_difference(model.embed(X, pooling="cls"), cls) < 1e-5
    assert relative_difference(model.embed(X, pooling="mean"), middle) < 1e-5
    assert model.embed(X, pooling="mean", stage="stages.2.blocks.0").shape == (2, 48)
    assert torch.equal(model.embed(X, normalize=True), F.normalize(model.embed(X)))


def test_embeddings_refuse_what_they_cannot_give(model: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match="pooling must be one of cls_norm, cls, mean"):
        model.embed(X, pooling="max")
    with pytest.raises(ValueError, match=r'stage=.* needs pooling="mean"'):
        model.embed(X, stage="stages.1")
    without = CvtForImageClassification(CvtConfig.from_dict(SMALL | {"cls_token": [False] * 3}))
    with pytest.raises(ValueError, match="pooling must be one of cls_norm, mean"):
        without.embed(X, pooling="cls")
