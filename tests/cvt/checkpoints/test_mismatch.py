"""Weights that do not fit: one line with the keys, the shapes and the likely cause."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cvt import CheckpointError, ConfigError, CvtConfig, CvtForImageClassification, CvtModel
from cvt.checkpoints.mismatch import Anatomy
from cvt.checkpoints.pretrained import recognise
from tests.support.models.oracle import SMALL, Oracle, images

load = CvtForImageClassification.from_pretrained
CONFIG = CvtConfig.from_dict(SMALL)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"depth": (1, 2, 4)},
            r"missing cvt\.encoder\.stages\.2\.layers\.3\.layernorm_before\.weight, .* and 32 more"
            r"\. The weights have depth \(1, 2, 3\), the configuration \(1, 2, 4\)$",
        ),
        ({"depth": (1, 2, 2)}, r"unexpected .* The weights have depth \(1, 2, 3\)"),
        (
            {"embed_dim": (16, 32, 96)},
            r"stages\.2\.cls_token is \(1, 1, 48\), not \(1, 1, 96\).* have embed_dim \(16, 32, 48",
        ),
        (
            {"labels": ("a", "b")},
            r"classifier\.weight is \(7, 48\), not \(2, 48\).* pass num_labels=7 to keep",
        ),
        ({"qkv_bias": (True, True, False)}, r"unexpected .*projection_query\.bias.* qkv_bias"),
        (
            {"cls_token": (False,) * 3},
            r"unexpected cvt\.encoder\.stages\.2\.cls_token\. Check cls_",
        ),
        ({"mlp_ratio": (4.0, 2.0, 4.0)}, r"is \(128, 32\), not \(64, 32\).* Check mlp_ratio"),
        (
            {"patch_sizes": (5, 3, 3)},
            r"is \(16, 3, 7, 7\), not \(16, 3, 5, 5\).* Check patch_sizes",
        ),
        ({"qkv_projection_method": ("avg",) * 3}, r"unexpected .*Check qkv_projection_method"),
    ],
)
def test_another_configuration_is_explained(
    fields: dict[str, Any], message: str, small_dir: Path
) -> None:
    config = dataclasses.replace(CONFIG, **{"labels": tuple("abcdefg")} | fields)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(small_dir / "model.safetensors", config=config)
    assert "\n" not in str(caught.value)


def test_an_unknown_shape_asks_for_a_config(small_dir: Path) -> None:
    with pytest.raises(CheckpointError, match=r"embed_dim \(16, 32, 48\) .*: pass config="):
        load(small_dir / "model.safetensors")


@pytest.mark.parametrize("preset", ["cvt-13", "cvt-21", "cvt-w24"])
def test_presets_are_told_by_their_shape(preset: str) -> None:
    expected = dataclasses.replace(CvtConfig.from_preset(preset), labels=tuple("abcde"))
    with torch.device("meta"):
        anatomy = Anatomy.of(CvtForImageClassification(expected).state_dict())
    assert anatomy == Anatomy(expected.embed_dim, expected.depth, 5)
    assert recognise(anatomy, "weights.pth").num_heads == expected.num_heads


def test_something_else_is_no_cvt(tmp_path: Path) -> None:
    torch.save({"vit.embeddings.cls_token": torch.zeros(3)}, tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match=r"is not a CvT: .* vit\.embeddings\.cls_token"):
        load(tmp_path / "m.bin")
    torch.save([1, 2], tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match=r"m\.bin does not hold a state dict"):
        load(tmp_path / "m.bin")
    (tmp_path / "m.onnx").touch()
    with pytest.raises(CheckpointError, match=r"m\.onnx: weights are read from files ending in"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "vit"}'])
def test_a_broken_config_is_named(text: str, small_dir: Path, tmp_path: Path) -> None:
    shutil.copy(small_dir / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        load(tmp_path)


def test_another_number_of_labels_gives_a_new_head_and_says_so(
    small_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load(small_dir, num_labels=3)
    assert "head new, for 3 labels" in caplog.text
    assert model(images(1, 32, 32)).logits.shape == (1, 3)
    assert model.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    kept = load(small_dir)
    assert torch.equal(model.norm.weight, kept.norm.weight)
    head = model.get_parameter("head.weight")
    assert head.std().item() == pytest.approx(0.02, rel=0.3)


def test_the_same_number_of_labels_keeps_head_and_names(
    small_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, kept = load(small_dir, num_labels=7), load(small_dir)
    assert not caplog.records
    assert model.config == kept.config
    assert torch.equal(model.get_parameter("head.weight"), kept.get_parameter("head.weight"))


def test_a_base_checkpoint_gives_a_new_head_and_says_so(
    small: Oracle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small.cvt.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        model = load(tmp_path, num_labels=3)
        assert "head and norm new, for 3 labels" in caplog.text
    caplog.clear()
    CvtModel.from_pretrained(tmp_path)
    assert not caplog.records
    x = images(1, 32, 32)
    with torch.inference_mode():
        expected = small.cvt(x).cls_token_value[:, 0]
        assert torch.allclose(model.embed(x, pooling="cls"), expected, atol=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["CvtModel"]
