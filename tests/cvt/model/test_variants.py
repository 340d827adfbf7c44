"""Models that transformers can describe but not run, against transformers put right by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cvt import CvtConfig, CvtForImageClassification, CvtModel
from tests.support.models.oracle import SMALL, difference, images, oracle

VARIANTS: dict[str, dict[str, Any]] = {
    "avg": {"qkv_projection_method": ["avg"] * 3},
    "linear": {"qkv_projection_method": ["linear"] * 3},
    "mixed": {
        "qkv_projection_method": ["dw_bn", "avg", "linear"],
        "qkv_bias": [True, False, True],
    },
    "no class token": {"cls_token": [False] * 3},
    "shallow": {"depth": [1, 1, 1]},
    "narrow mlp": {"mlp_ratio": [2.0, 4.0, 1.5]},
    "fine keys": {"stride_kv": [2, 1, 1], "depth": [1, 2, 3]},
}


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (3, 3)])
@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_variant_equals_the_completed_oracle(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    expected_model = oracle(**SMALL | VARIANTS[name])
    expected_model.save_pretrained(tmp_path)
    x = images(2, *size)
    # Without a class token transformers reads the wrong output unless hidden states are asked for.
    expected = expected_model(x, output_hidden_states=True).logits
    model = CvtForImageClassification.from_pretrained(tmp_path)
    assert difference(model(x).logits, expected) < 1e-5
    assert difference(model.optimize()(x).logits, expected) < 1e-4


@torch.inference_mode()
def test_a_class_token_may_live_in_every_stage() -> None:
    """Its width is its own stage's, and it is not passed on, as in Microsoft's code."""
    config = CvtConfig.from_dict(SMALL | {"cls_token": [True] * 3})
    model = CvtModel(config).eval()
    widths = [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("cls_token")]
    assert widths == [(1, 1, 16), (1, 1, 32), (1, 1, 48)]
    maps = model(images(1, 64, 64), output_hidden_states=True).hidden_states
    assert maps is not None
    assert [tuple(m.shape) for m in maps] == [(1, 16, 16, 16), (1, 32, 8, 8), (1, 48, 4, 4)]


@torch.inference_mode()
def test_one_image_of_three_pixels() -> None:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL)).eval()
    assert model(images(1, 3, 3)).logits.shape == (1, 7)


@pytest.mark.parametrize("shape", [(1, 3, 2, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_other_inputs_are_refused_by_name(shape: tuple[int, ...]) -> None:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL)).eval()
    with pytest.raises(ValueError, match=r"pixel_values must be \(B, 3, H, W\)"):
        model(torch.zeros(shape))


@torch.inference_mode()
def test_channels_last_changes_nothing(small_dir: Path) -> None:
    model: Any = CvtForImageClassification.from_pretrained(small_dir)
    x = images(2, 64, 48)
    expected = model(x).logits
    model = model.to(memory_format=torch.channels_last)
    assert difference(model(x.to(memory_format=torch.channels_last)).logits, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_takes_float32_pixels_and_gives_float32(
    small_dir: Path, dtype: torch.dtype
) -> None:
    x = images(2, 64, 48)
    expected = CvtForImageClassification.from_pretrained(small_dir)(x).embedding
    out = CvtForImageClassification.from_pretrained(small_dir, dtype=dtype)(x)
    assert out.logits.dtype == out.embedding.dtype == torch.float32
    similarity = torch.nn.functional.cosine_similarity(out.embedding, expected)
    assert 0.999 < similarity.min() < 1


@torch.inference_mode()
def test_without_labels_the_logits_are_the_embedding() -> None:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL | {"id2label": {}})).eval()
    out = model(images(1, 32, 32))
    assert torch.equal(out.logits, out.embedding)
