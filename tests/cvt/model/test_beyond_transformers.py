"""What transformers' CvT refuses or ignores, and ours does. Run with -v for the list.

When a release of transformers mends one of these, its test here fails: take it out of the README.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cvt import CvtConfig, CvtForImageClassification
from tests.support.models.layout_writers import microsoft_state, tensorflow_datasets, write_hdf5
from tests.support.models.oracle import SMALL, Oracle, difference, images

X = images(2, 48, 48)


def build_theirs(**fields: Any) -> Any:
    config = transformers.CvtConfig(**SMALL | fields)
    return transformers.CvtForImageClassification(config).eval()


def build_ours(**fields: Any) -> CvtForImageClassification:
    return CvtForImageClassification(CvtConfig.from_dict(SMALL | fields)).eval()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        pytest.param({"depth": [1, 1, 1]}, IndexError, id="depth not above the stage's index"),
        pytest.param({"qkv_projection_method": ["avg"] * 3}, AttributeError, id="avg projection"),
        pytest.param({"qkv_projection_method": ["linear"] * 3}, AttributeError, id="linear"),
        pytest.param({"cls_token": [False] * 3}, IndexError, id="classifier without class token"),
        pytest.param({"cls_token": [False, True, True]}, RuntimeError, id="earlier class token"),
    ],
)
@torch.inference_mode()
def test_architecture(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        build_theirs(**fields)(X)
    assert build_ours(**fields)(X).logits.shape == (2, 7)


def test_scaled_dot_product_attention(small_dir: Path) -> None:
    with pytest.raises(ValueError, match="does not support an attention implementation"):
        transformers.CvtForImageClassification.from_pretrained(
            small_dir, attn_implementation="sdpa"
        )


def test_gradient_checkpointing() -> None:
    with pytest.raises(ValueError, match="does not support"):
        build_theirs().activation_checkpointing_enable()
    build_ours().backbone.gradient_checkpointing_enable()


@torch.inference_mode()
def test_attention_weights() -> None:
    assert not hasattr(build_theirs()(X, output_attentions=True), "attentions")
    assert len(build_ours()(X, output_attentions=True).attentions or {}) == 6


@torch.inference_mode()
def test_float32_images_into_a_bfloat16_model() -> None:
    with pytest.raises(RuntimeError):
        build_theirs().bfloat16()(X)
    assert build_ours().bfloat16()(X).logits.dtype == torch.float32


@torch.inference_mode()
def test_quick_gelu() -> None:
    """The convention of Microsoft's weights: transformers has no switch for it."""
    plain, quick = (build_theirs(hidden_act=name) for name in ("gelu", "quick_gelu"))
    quick.load_state_dict(plain.state_dict())
    assert torch.equal(plain(X).logits, quick(X).logits)
    ours, ours_quick = (build_ours(hidden_act=name) for name in ("gelu", "quick_gelu"))
    ours_quick.load_state_dict(ours.state_dict())
    assert not torch.equal(ours(X).logits, ours_quick(X).logits)


def test_drop_path_of_each_block() -> None:
    """Theirs gives every block of a stage the rate of one of them."""
    fields = {"depth": [1, 2, 5], "drop_path_rate": [0.0, 0.0, 0.4]}
    theirs = build_theirs(**fields).cvt.encoder.stages[2].layers
    assert [layer.drop_path.drop_prob for layer in theirs] == pytest.approx([0.2] * 5)
    ours = [block.drop_path.rate for block in build_ours(**fields).backbone.stages[2].blocks]  # type: ignore[union-attr]
    assert ours == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def write_zoo(model: Oracle, folder: Path) -> None:
    torch.save(microsoft_state(model), folder / "model.pth")


def write_tensorflow(model: Oracle, folder: Path) -> None:
    model.config.save_pretrained(folder)
    write_hdf5(
        folder / "tf_model.h5", tensorflow_datasets(model, "tf_cvt_for_image_classification")
    )


@pytest.mark.parametrize(
    ("write", "name"), [(write_zoo, "model.pth"), (write_tensorflow, "tf_model.h5")]
)
@torch.inference_mode()
def test_layouts(
    write: Callable[[Oracle, Path], None], name: str, small: Oracle, small_dir: Path, tmp_path: Path
) -> None:
    write(small, tmp_path)
    with pytest.raises((OSError, ValueError)):
        transformers.CvtForImageClassification.from_pretrained(tmp_path)
    model = CvtForImageClassification.from_pretrained(
        tmp_path / name, config=str(small_dir / "config.json"), activation="gelu"
    )
    assert difference(model(X).logits, small(X).logits) < 1e-5


@torch.inference_mode()
def test_embedding_and_maps_of_blocks(small: Oracle, small_dir: Path) -> None:
    theirs = small(X, output_hidden_states=True)
    assert not hasattr(theirs, "embedding")
    assert len(theirs.hidden_states) == 3
    model = CvtForImageClassification.from_pretrained(small_dir)
    assert model(X).embedding.shape == (2, 48)
    assert len(model.backbone.features(X, model.backbone.feature_names)) == 9
