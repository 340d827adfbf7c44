"""The network against transformers', in inference."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cvt import CvtConfig, CvtForImageClassification, CvtModel
from tests.support.models.oracle import (
    SMALL,
    TOLERANCE,
    Oracle,
    difference,
    images,
    oracle,
    relative_difference,
)


@pytest.mark.parametrize(("batch", "height", "width"), [(2, 224, 224), (1, 384, 384), (2, 97, 131)])
@torch.inference_mode()
def test_cvt13_equals_transformers(
    cvt13: Oracle,
    cvt13_dir: Path,
    batch: int,
    height: int,
    width: int,
) -> None:
    x = images(batch, height, width)
    expected = cvt13(x, output_hidden_states=True)
    ours = CvtForImageClassification.from_pretrained(cvt13_dir)(x, output_hidden_states=True)

    assert expected.logits.std() > 0.5
    assert difference(ours.logits, expected.logits) < TOLERANCE
    for a, b in zip(ours.hidden_states, expected.hidden_states, strict=True):
        assert relative_difference(a, b) < TOLERANCE


@pytest.mark.parametrize("depth", [[1, 2, 3], [1, 1, 1], [2, 1, 2]])
@torch.inference_mode()
def test_small_equals_transformers(depth: list[int], tmp_path: Path) -> None:
    """Head width 8; and depths that transformers itself refuses to build."""
    expected_model = oracle(**SMALL | {"depth": depth})
    expected_model.save_pretrained(tmp_path)
    model = CvtForImageClassification.from_pretrained(tmp_path)
    x = images(3, 64, 45)
    assert difference(model(x).logits, expected_model(x).logits) < TOLERANCE


@torch.inference_mode()
def test_base_model_equals_transformers(cvt13: Oracle, cvt13_dir: Path) -> None:
    x = images(2, 97, 131)
    expected = cvt13.cvt(x, output_hidden_states=True)
    ours = CvtModel.from_pretrained(cvt13_dir)(x, output_hidden_states=True)
    assert ours.last_hidden_state.shape == (2, 384, 6, 9)
    assert relative_difference(ours.last_hidden_state, expected.last_hidden_state) < TOLERANCE
    assert ours.cls_token_value.shape == (2, 1, 384)
    assert relative_difference(ours.cls_token_value, expected.cls_token_value) < TOLERANCE
    assert len(ours.hidden_states) == 3


@torch.inference_mode()
def test_embedding_is_what_enters_the_classifier(cvt13: Oracle, cvt13_dir: Path) -> None:
    entered: list[torch.Tensor] = []
    hook = cvt13.classifier.register_forward_hook(lambda _, inputs, __: entered.append(inputs[0]))
    x = images(2, 97, 131)
    cvt13(x)
    hook.remove()
    embedding = CvtForImageClassification.from_pretrained(cvt13_dir)(x).embedding
    assert embedding.dtype == torch.float32
    assert embedding.shape == (2, 384)
    assert difference(embedding, entered[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, torch.tensor([0, 6, 2])),
        ({}, torch.tensor([[1.0, 0, 0, 1, 0, 0, 1]] * 3)),
        ({"problem_type": "single_label_classification"}, torch.tensor([1, 2, 3])),
        ({"problem_type": "multi_label_classification"}, torch.rand(3, 7).round()),
        ({"problem_type": "regression"}, torch.linspace(-1, 1, 21).view(3, 7)),
        ({"num_labels": 1}, torch.tensor([0.5, -1.0, 2.0])),
        ({"num_labels": 1}, torch.tensor([[0.5], [-1.0], [2.0]])),
    ],
)
@torch.inference_mode()
def test_loss_is_chosen_as_transformers_does(
    fields: dict[str, Any], labels: torch.Tensor, tmp_path: Path
) -> None:
    expected_model = oracle(**SMALL | fields)
    expected_model.save_pretrained(tmp_path)
    model = CvtForImageClassification.from_pretrained(tmp_path)
    x = images(3, 32, 32)
    expected = expected_model(x, labels=labels).loss
    assert difference(model(x, labels=labels).loss, expected) < TOLERANCE


@pytest.mark.parametrize(
    ("preset", "whole", "backbone", "buffers"),
    [
        ("cvt-13", 19_997_480, 19_611_712, 25_767),
        ("cvt-21", 31_622_696, 31_236_928, 41_919),
        ("cvt-w24", 277_196_392, 276_169_344, 134_472),
    ],
)
def test_parameter_counts_are_the_published_models(
    preset: str, whole: int, backbone: int, buffers: int
) -> None:
    """Counted on both reference implementations."""
    with torch.device("meta"):
        model = CvtForImageClassification(CvtConfig.from_preset(preset))
    assert sum(p.numel() for p in model.parameters()) == whole
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(b.numel() for b in model.buffers()) == buffers


@pytest.mark.parametrize(
    ("preset", "size", "flops"),
    [
        ("cvt-13", 224, 9.132e9),
        ("cvt-13", 384, 32.539e9),
        ("cvt-21", 224, 14.356e9),
        ("cvt-21", 384, 49.698e9),
        ("cvt-w24", 224, 121.835e9),
        ("cvt-w24", 384, 388.443e9),
    ],
)
@torch.inference_mode()
def test_flops_are_the_published_models(preset: str, size: int, flops: float) -> None:
    """Two per multiplication, counted on both reference implementations; the paper counts one."""
    with torch.device("meta"):
        model = CvtForImageClassification(CvtConfig.from_preset(preset)).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size))
    assert counter.get_total_flops() == pytest.approx(flops, rel=1e-4)


def test_an_empty_batch_has_empty_results() -> None:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL))
    nothing = images(0, 32, 48)
    for out in (model.eval()(nothing), model.backbone.features(nothing, ["stages.0"])):
        assert all(len(value) == 0 for value in out.values())
    out = model(nothing, output_hidden_states=True, output_attentions=True)
    assert out.logits.shape == (0, 7)
    assert out.embedding.shape == model.embed(nothing).shape == (0, 48)
    assert out.hidden_states[0].shape == (0, 16, 8, 12)
    assert out.attentions["stages.1.blocks.0"].shape == (0, 4, 24, 6)
