"""Hugging Face's layout in and out, with transformers at the other end."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cvt import CvtForImageClassification, CvtModel, weights_hash
from tests.support.models.layout_writers import (
    save_as_bin,
    save_as_sharded_bin,
    save_as_sharded_safetensors,
)
from tests.support.models.oracle import Oracle, difference, images

X = images(2, 48, 33)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(X).logits
    return result


def loaded_whole(kind: Any, folder: Path) -> Any:
    """transformers' model of a directory, with no key missing, unexpected or of another shape."""
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    return model


@pytest.mark.parametrize(
    "save",
    [save_as_bin, save_as_sharded_bin, save_as_sharded_safetensors],
    ids=lambda f: f.__name__,
)
def test_hugging_face_directories_load(small: Oracle, tmp_path: Path, save: object) -> None:
    assert callable(save)
    save(small, tmp_path)
    model = CvtForImageClassification.from_pretrained(tmp_path)
    assert not model.training
    assert difference(logits(model), logits(small)) < 1e-5


def test_transformers_loads_what_we_save(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    CvtForImageClassification.from_pretrained(small_dir).save_pretrained(tmp_path)
    loaded = loaded_whole(transformers.CvtForImageClassification, tmp_path)
    assert torch.equal(logits(loaded), logits(small))
    assert loaded.config.id2label == small.config.id2label


def test_base_models_round_trip(small: Oracle, tmp_path: Path) -> None:
    small.cvt.save_pretrained(tmp_path / "theirs")
    base = CvtModel.from_pretrained(tmp_path / "theirs")
    base.save_pretrained(tmp_path / "ours")
    loaded = loaded_whole(transformers.CvtModel, tmp_path / "ours")
    with torch.inference_mode():
        expected = small.cvt(X)
        assert torch.equal(loaded(X).last_hidden_state, expected.last_hidden_state)
        assert difference(base(X).cls_token_value, expected.cls_token_value) < 1e-5


def test_the_activation_is_recorded_and_does_not_disturb_transformers(
    small_dir: Path, tmp_path: Path
) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir, activation="quick_gelu")
    model.save_pretrained(tmp_path)
    again = CvtForImageClassification.from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.config.activation == "quick_gelu"
    assert torch.equal(logits(again), logits(model))
    loaded_whole(transformers.CvtForImageClassification, tmp_path)


def test_arrays_rebuild_the_model_without_a_copy(small_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir)
    arrays = model.state_arrays()
    for array in arrays.values():
        array.flags.writeable = False
    rebuilt = CvtForImageClassification.from_state(model.config, arrays)
    assert torch.equal(logits(rebuilt), logits(model))
    assert rebuilt.get_parameter("head.weight").data_ptr() == arrays["head.weight"].ctypes.data


def test_the_hash_depends_on_the_weights_alone(
    small: Oracle, small_dir: Path, tmp_path: Path
) -> None:
    save_as_sharded_bin(small, tmp_path)
    model = CvtForImageClassification.from_pretrained(small_dir)
    digest = weights_hash(model)
    assert weights_hash(CvtForImageClassification.from_pretrained(tmp_path)) == digest
    rebuilt = CvtForImageClassification.from_state(model.config, model.state_arrays())
    assert weights_hash(rebuilt) == digest
    with torch.no_grad():
        model.get_buffer("backbone.stages.1.blocks.1.attn.key.spatial.bn.running_mean")[3] += 1e-6
    assert weights_hash(model) != digest
