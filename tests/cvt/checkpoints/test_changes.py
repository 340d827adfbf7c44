"""What ``from_pretrained`` changes on the way, in the arguments of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cvt import CheckpointError, ConfigError, CvtConfig, CvtForImageClassification, CvtModel
from tests.support.models.oracle import Oracle

load = CvtForImageClassification.from_pretrained
NAMES = ["cat", "dog", "ox"]
SEVEN = [*"abcdefg"]


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": NAMES},
        {"id2label": dict(enumerate(NAMES))},
        {"label2id": {"dog": 1, "cat": 0, "ox": 2}},
        {"num_labels": 3, "id2label": NAMES, "label2id": {"cat": 0, "dog": 1, "ox": 2}},
        {"id2label": NAMES, "ignore_mismatched_sizes": True},
        {"labels": NAMES},
    ],
    ids=str,
)
def test_other_classes_get_a_new_head(
    changes: dict[str, Any], small_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the fine-tuning notebooks begin."""
    model = load(small_dir, **changes)
    assert model.config.labels == model.backbone.config.labels == ("cat", "dog", "ox")
    assert model.get_parameter("head.weight").shape == (3, 48)
    assert "head new, for 3 labels: train first" in caplog.text
    old = load(small_dir)
    assert torch.equal(model.norm.weight, old.norm.weight)


def test_other_names_for_as_many_classes_keep_the_head(small_dir: Path) -> None:
    model, old = load(small_dir, id2label=SEVEN), load(small_dir)
    assert model.config.labels == tuple(SEVEN)
    assert torch.equal(model.get_parameter("head.weight"), old.get_parameter("head.weight"))
    assert load(small_dir, num_labels=7).config == old.config


def test_fields_of_the_configuration(small_dir: Path) -> None:
    model = load(small_dir, problem_type="multi_label_classification", drop_path_rate=[0, 0, 0.3])
    assert model.config == load(small_dir).config.changed(
        problem_type="multi_label_classification", drop_path_rate=(0, 0, 0.3)
    )
    assert load(small_dir, hidden_act="quick_gelu").config.activation == "quick_gelu"


def test_contradictions_and_unknown_names_are_refused(small_dir: Path) -> None:
    with pytest.raises(ConfigError, match="num_labels is 7, but 3 labels have names"):
        load(small_dir, num_labels=7, id2label=NAMES)
    with pytest.raises(TypeError, match="no field 'cache_dir'"):
        load(small_dir, cache_dir="x")


def test_weights_of_another_size_are_new_on_request(
    small_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CheckpointError, match="The weights have embed_dim"):
        load(small_dir, embed_dim=[16, 32, 96])
    model, old = (
        load(small_dir, embed_dim=[16, 32, 96], ignore_mismatched_sizes=True),
        load(small_dir),
    )
    same = "backbone.stages.1.blocks.0.mlp.fc1.weight"
    assert torch.equal(model.get_parameter(same), old.get_parameter(same))
    assert model.get_parameter("head.weight").shape == (7, 96)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert "backbone.stages.2.blocks.0" in caplog.text
    config = old.config.changed(num_labels=2)
    assert load(small_dir, config=config, ignore_mismatched_sizes=True).num_classes == 2


@pytest.mark.parametrize("dtype", [torch.float16, "float16", "torch.float16", "auto"])
def test_dtypes_by_name(dtype: torch.dtype | str, small_dir: Path, tmp_path: Path) -> None:
    load(small_dir).half().save_pretrained(tmp_path)
    for model in (load(tmp_path, dtype=dtype), load(tmp_path, torch_dtype=dtype)):
        assert model.dtype == torch.float16
    assert load(tmp_path).dtype == torch.float32


@pytest.mark.parametrize("dtype", ["int8", "half precision", torch.int8])
def test_other_dtypes_are_refused(dtype: Any, small_dir: Path) -> None:
    with pytest.raises(ValueError, match='dtype must be "auto" or a floating one'):
        load(small_dir, dtype=dtype)


def test_a_default_device_counts_for_old_and_new_weights(small_dir: Path) -> None:
    with torch.device("meta"), pytest.raises(RuntimeError, match="meta, which holds no weights"):
        load(small_dir)
    with torch.device("meta"):
        model = load(small_dir, num_labels=3, device="cpu")
    state = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in state} == {"cpu"}


def test_a_head_that_the_configuration_does_not_know_is_not_saved(
    small_dir: Path, tmp_path: Path
) -> None:
    model = load(small_dir)
    model.head = torch.nn.Linear(48, 5)
    with pytest.raises(ValueError, match="5 outputs and the configuration 7 labels: set config"):
        model.save_pretrained(tmp_path)
    model.config.num_labels = 5
    model.save_pretrained(tmp_path)
    assert load(tmp_path).num_classes == 5


def test_weights_without_a_configuration_say_what_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a Trainer saves them."""
    config = CvtConfig(num_labels=3, activation="quick_gelu")
    torch.save(CvtForImageClassification(config).state_dict(), tmp_path / "pytorch_model.bin")
    assert load(tmp_path, config=config).config == config
    assert load(tmp_path, activation="quick_gelu").config == config.changed(num_labels=3)
    assert not caplog.text
    assert load(tmp_path).config.activation == "gelu"
    assert "nothing says which activation, taking gelu: pass config=" in caplog.text


def test_a_backbone_takes_them_too(small: Oracle, small_dir: Path) -> None:
    backbone = CvtModel.from_pretrained(small_dir, num_labels=3, drop_rate=[0.1] * 3)
    assert isinstance(backbone.config, CvtConfig)
    assert backbone.config.drop_rate == (0.1, 0.1, 0.1)
