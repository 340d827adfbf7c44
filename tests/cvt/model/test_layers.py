"""Single layers: what shows only where their inputs are unusual."""

from pathlib import Path
from typing import cast

import pytest
import torch

from cvt import CvtForImageClassification
from cvt.layers.blocks import Attention
from cvt.layers.drop_path import DropPath
from tests.support.models.oracle import SMALL, TOLERANCE, Oracle, difference, images, oracle


@pytest.mark.parametrize("gain", [1.0, 3e-3])
@torch.inference_mode()
def test_layer_norm_eps_shows_on_tokens_of_tiny_variance(gain: float, tmp_path: Path) -> None:
    """Variances near 1e-5: with eps 1e-6 or 1e-12 the logits would be off by more than 0.1."""
    expected_model = oracle(**SMALL)
    for stage in expected_model.cvt.encoder.stages:
        for parameter in stage.embedding.convolution_embeddings.projection.parameters():
            parameter.mul_(gain)
    expected_model.save_pretrained(tmp_path)
    model = CvtForImageClassification.from_pretrained(tmp_path)
    x = images(2, 64, 64)
    expected = expected_model(x).logits
    assert difference(model(x).logits, expected) < TOLERANCE

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12
    if gain < 1:
        assert difference(model(x).logits, expected) > 0.1


@torch.inference_mode()
def test_scale_is_of_the_stage_width_not_the_head_width(small: Oracle, small_dir: Path) -> None:
    """The oracle agrees only as long as every stage divides by sqrt(C)."""
    model = CvtForImageClassification.from_pretrained(small_dir)
    x = images(2, 64, 64)
    expected = small(x).logits
    for stage, width in enumerate((16, 32, 48)):
        attention = cast(Attention, model.get_submodule(f"backbone.stages.{stage}.blocks.0.attn"))
        assert attention.scale == width**-0.5
        attention.scale = 8**-0.5
        assert difference(model(x).logits, expected) > 1e-3
        attention.scale = width**-0.5
    assert difference(model(x).logits, expected) < TOLERANCE


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    x = torch.ones(4000, 3, 2)
    y = layer.train()(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(y.amax(dim=(1, 2)), y.amin(dim=(1, 2)))
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(x), x)
