"""Every published layout, written here by its description and read back: equal logits."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from cvt import CvtForImageClassification, CvtModel
from cvt.checkpoints.layouts import translate
from tests.support.models.layout_writers import (
    microsoft_state,
    tensorflow_datasets,
    training_checkpoint,
    write_hdf5,
)
from tests.support.models.oracle import Oracle, difference, images, oracle, use_quick_gelu

X = images(2, 64, 45)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(X).logits
    return result


@pytest.fixture(scope="module")
def quick_logits() -> torch.Tensor:
    """CvT-13 under Microsoft's convention."""
    return logits(use_quick_gelu(oracle(num_labels=1000)))


@pytest.mark.parametrize("layout", ["zoo", "checkpoint", "model entry"])
def test_microsoft_files_load_without_a_config_as_quick_gelu(
    layout: str, cvt13: Oracle, quick_logits: torch.Tensor, tmp_path: Path
) -> None:
    state = microsoft_state(cvt13)
    assert len(state) == 459
    contents = {
        "zoo": state,
        "checkpoint": training_checkpoint(state),
        "model entry": {"model": state},
    }
    torch.save(contents[layout], tmp_path / "model.pth")
    model = CvtForImageClassification.from_pretrained(tmp_path / "model.pth")
    assert model.config.activation == "quick_gelu"
    assert difference(logits(model), quick_logits) < 2e-5


def test_the_activation_can_be_chosen_for_any_layout(
    cvt13: Oracle, cvt13_dir: Path, quick_logits: torch.Tensor, tmp_path: Path
) -> None:
    torch.save(microsoft_state(cvt13), tmp_path / "model.pth")
    load = CvtForImageClassification.from_pretrained
    exact = logits(cvt13)
    assert difference(exact, quick_logits) > 0.01
    assert difference(logits(load(tmp_path / "model.pth", activation="gelu")), exact) < 2e-5
    assert difference(logits(load(cvt13_dir, activation="quick_gelu")), quick_logits) < 2e-5


def test_a_single_safetensors_file_needs_no_config(cvt13: Oracle, cvt13_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir / "model.safetensors")
    assert model.config.activation == "gelu"
    assert difference(logits(model), logits(cvt13)) < 2e-5


@pytest.mark.parametrize("scope", ["tf_cvt_for_image_classification", "tf_cvt_model_1"])
def test_tensorflow_files_load(scope: str, small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((small_dir / "config.json").read_bytes())
    write_hdf5(tmp_path / "tf_model.h5", tensorflow_datasets(small, scope))
    model = CvtForImageClassification.from_pretrained(tmp_path)
    assert difference(logits(model), logits(small)) < 1e-5


def test_a_tensorflow_file_of_cvt13_has_the_published_number_of_datasets(
    cvt13: Oracle, tmp_path: Path
) -> None:
    datasets = tensorflow_datasets(cvt13, "tf_cvt_for_image_classification")
    assert len(datasets) == 420
    write_hdf5(tmp_path / "weights.h5", datasets)
    model = CvtForImageClassification.from_pretrained(tmp_path / "weights.h5")
    assert difference(logits(model), logits(cvt13)) < 2e-5


def test_base_models_of_all_layouts_load(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    full = CvtForImageClassification.from_pretrained(small_dir)
    states = {
        "hugging_face": small.cvt.state_dict(),
        "microsoft": {
            name: tensor
            for name, tensor in microsoft_state(small).items()
            if name.startswith("stage")
        },
        "ours": full.backbone.state_dict(),
    }
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.bin")
        base = CvtModel.from_pretrained(
            tmp_path / f"{name}.bin", config=full.config, activation="gelu"
        )
        with torch.inference_mode():
            expected = small.cvt(X).cls_token_value
            assert difference(base(X).cls_token_value, expected) < 1e-5


def test_our_own_state_dict_loads(small_dir: Path, tmp_path: Path) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir)
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    again = CvtForImageClassification.from_pretrained(tmp_path / "ours.pt", config=model.config)
    assert torch.equal(logits(again), logits(model))


def test_names_translate_there_and_back(cvt13: Oracle) -> None:
    """Against the list above, which is not ours; and no two names fall together."""
    state = dict.fromkeys(cvt13.state_dict())
    microsoft = translate(state, "hugging_face", "microsoft")
    assert list(microsoft) == list(microsoft_state(cvt13))
    assert list(translate(microsoft, "microsoft", "hugging_face")) == list(state)
    ours = translate(state, "hugging_face", "ours")
    assert len(ours) == 459
    assert list(translate(ours, "ours", "microsoft")) == list(microsoft)


def test_half_precision_files_become_float32(small: Oracle, tmp_path: Path) -> None:
    small.config.save_pretrained(tmp_path)
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in small.state_dict().items()
    }
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    model = CvtForImageClassification.from_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert difference(logits(model), logits(small)) < 0.05
