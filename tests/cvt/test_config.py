"""CvtConfig against transformers', and what it refuses."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import transformers

from cvt import ConfigError, CvtConfig

# A config.json as published in 2022, with its legacy and dead keys.
LEGACY: dict[str, Any] = {
    "architectures": ["CvtForImageClassification"],
    "model_type": "cvt",
    "depth": [1, 4, 16],
    "hidden_dropout_prob": 0.0,
    "id2label": {"1": "dog", "0": "cat"},
    "image_size": 384,
    "label2id": {"cat": "0", "dog": "1"},
    "layer_norm_eps": 1e-12,
    "num_stages": 3,
    "pos_embed": [False, False, False],
    "torch_dtype": "float32",
    "transformers_version": "4.18.0.dev0",
}


def test_defaults_are_transformers() -> None:
    theirs = transformers.CvtConfig().to_dict()
    ours = CvtConfig().to_dict()
    shared = (theirs.keys() & ours.keys()) - {"id2label", "label2id", "architectures"}
    assert {name: ours[name] for name in shared} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in theirs.items()
        if name in shared
    }
    assert len(shared) > 20


def test_legacy_files_are_read() -> None:
    config = CvtConfig.from_dict(LEGACY)
    assert config == dataclasses.replace(
        CvtConfig.from_preset("cvt-21"), labels=("cat", "dog"), image_size=384
    )
    assert config.id2label == {0: "cat", 1: "dog"}
    assert config.label2id == {"cat": 0, "dog": 1}


@pytest.mark.parametrize("preset", ["cvt-13", "cvt-21", "cvt-w24"])
def test_transformers_reads_what_we_write(preset: str, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CvtConfig.from_preset(preset),
        labels=("a", "b", "c"),
        problem_type="multi_label_classification",
        activation="quick_gelu",
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    theirs = transformers.CvtConfig.from_pretrained(tmp_path)
    assert theirs.id2label == config.id2label
    assert theirs.label2id == config.label2id
    assert theirs.problem_type == config.problem_type
    assert tuple(theirs.depth) == config.depth
    assert CvtConfig.from_dict(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "count"), [({}, 2), ({"num_labels": 5}, 5), ({"id2label": {"0": "x"}}, 1)]
)
def test_number_of_labels_without_names_is_transformers(values: dict[str, Any], count: int) -> None:
    assert CvtConfig.from_dict(values).num_labels == count
    assert transformers.CvtConfig(**values).num_labels == count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": (1, 2)}, r"patch_sizes must have one value per stage \(2, as depth has\)"),
        ({"num_heads": (1, 3, 5)}, "stage 2: embed_dim 384 must be a positive multiple of num_"),
        ({"qkv_projection_method": ("dw_bn", "dw", "avg")}, "must be one of dw_bn, avg, linear"),
        ({"stride_q": (1, 2, 1)}, "stage 1: the query projection must keep the map's size"),
        ({"drop_path_rate": (0.0, 0.0, 1.0)}, r"stage 2: drop_path_rate must lie in \[0, 1\)"),
        ({"activation": "relu"}, "activation must be one of gelu, quick_gelu, not 'relu'"),
        ({"problem_type": "ranking"}, "problem_type must be one of single_label_classification"),
    ],
)
def test_nonsense_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CvtConfig(**fields)


def test_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="model_type must be \"cvt\", not 'vit'"):
        CvtConfig.from_dict({"model_type": "vit"})
    with pytest.raises(ConfigError, match="preset must be one of cvt-13, cvt-21, cvt-w24"):
        CvtConfig.from_preset("cvt-14")
    with pytest.raises(ConfigError, match="id2label must name every class from 0"):
        CvtConfig.from_dict({"id2label": {"1": "a", "2": "b"}})


def test_lists_and_transformers_names_are_taken() -> None:
    """The call in which transformers' own tests make a CvT."""
    fields: dict[str, Any] = {
        "image_size": 64,
        "num_labels": 2,
        "num_channels": 3,
        "embed_dim": [16, 32, 48],
        "num_heads": [1, 2, 3],
        "patch_sizes": [7, 3, 3],
        "patch_stride": [4, 2, 2],
        "stride_kv": [2, 2, 2],
        "cls_token": [False, False, True],
        "attention_drop_rate": [0.0, 0.0, 0.0],
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
    }
    config, theirs = CvtConfig(**fields), transformers.CvtConfig(**fields)
    assert config == CvtConfig.from_dict(theirs.to_dict() | {"hidden_act": None})
    assert config.embed_dim == (16, 32, 48)
    assert config.id2label == theirs.id2label
    assert config.label2id == theirs.label2id
    assert CvtConfig(hidden_act="quick_gelu").activation == "quick_gelu"


@pytest.mark.parametrize(
    "labels",
    [
        {"labels": ["cat", "dog"]},
        {"id2label": {0: "cat", 1: "dog"}},
        {"id2label": {"1": "dog", "0": "cat"}},
        {"id2label": ["cat", "dog"]},
        {"label2id": {"dog": 1, "cat": 0}},
        {"label2id": {"dog": "1", "cat": "0"}},
        {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}, "num_labels": 2},
    ],
    ids=str,
)
def test_spellings_of_the_labels(labels: dict[str, Any]) -> None:
    assert CvtConfig(**labels) == CvtConfig(labels=("cat", "dog"))
    assert CvtConfig().changed(**labels) == CvtConfig(labels=("cat", "dog"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"num_labels": 3, "id2label": ["a", "b"]}, r"num_labels is 3, but 2 labels have names"),
        (
            {"id2label": ["a", "b"], "label2id": {"a": 1}},
            "label2id says that 'a' is class 1, which it is not",
        ),
        ({"labels": ("a",), "num_labels": 2}, "labels must not contradict num_labels"),
        ({"label2id": {"a": 0, "b": 0}}, "label2id says that 'a' is class 0, which it is not"),
        ({"id2label": {0: "a", "0": "b"}}, "id2label must be a list of names, or a map"),
        ({"id2label": {"first": "a"}}, "id2label must be a list of names, or a map"),
        ({"num_labels": -1}, "num_labels must be a whole number, 0 or more"),
        ({"num_labels": 2.5}, "num_labels must be a whole number, 0 or more"),
    ],
    ids=str,
)
def test_contradictions_are_refused(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CvtConfig(**labels)


def test_two_classes_of_one_name_as_in_imagenet() -> None:
    names = {0: "crane", 1: "ox", 2: "crane"}
    config = CvtConfig(id2label=names, label2id={"crane": 2, "ox": 1})
    assert config.id2label == names
    assert config.label2id == {"crane": 2, "ox": 1}


def test_fields_that_are_set_are_checked() -> None:
    config = CvtConfig()
    config.drop_path_rate = [0.0, 0.1, 0.2]  # type: ignore[assignment]
    assert config.drop_path_rate == (0.0, 0.1, 0.2)
    with pytest.raises(ConfigError, match="stage 1: embed_dim 5"):
        config.embed_dim = (64, 5, 384)
    with pytest.raises(ConfigError, match="problem_type must be one of"):
        config.problem_type = "ranking"
    assert config == CvtConfig(drop_path_rate=(0.0, 0.1, 0.2))
    config.hidden_act = "quick_gelu"
    assert config.activation == config.hidden_act == "quick_gelu"
    with pytest.raises(ConfigError, match="activation must be one of"):
        config.hidden_act = "relu"


def test_labels_can_be_set_in_every_spelling() -> None:
    config: Any = CvtConfig(labels=("a", "b"))
    config.num_labels = 2
    assert config.labels == ("a", "b")
    config.num_labels = 3
    assert config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    config.id2label = {0: "cat", 1: "dog"}
    config.label2id = {"cat": 0, "dog": 1}
    assert (config.labels, config.num_labels) == (("cat", "dog"), 2)
    config.label2id = {"ox": 0}
    assert config.id2label == {0: "ox"}


def test_what_libraries_attach_is_kept_and_not_saved() -> None:
    config: Any = CvtConfig()
    config.use_cache = False
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other.use_cache is False
        assert other == config == CvtConfig()
    assert "use_cache" not in config.to_dict()


def test_misspelt_fields_are_told_the_nearest() -> None:
    with pytest.raises(TypeError, match="no field 'embed_dims': did you mean embed_dim"):
        CvtConfig(embed_dims=[1, 2, 3])
    with pytest.raises(
        TypeError, match=r"no field 'pooling'; from_dict takes a whole config\.json$"
    ):
        CvtConfig(pooling=1)
    config: Any = CvtConfig()
    with pytest.raises(AttributeError, match="did you mean drop_path_rate"):
        config.drop_path_rates = (0.0, 0.0, 0.0)


def test_a_configuration_is_read_and_written_alone(tmp_path: Path) -> None:
    transformers.CvtConfig(**{**LEGACY, "num_labels": 2}).save_pretrained(tmp_path)
    for source in (tmp_path, str(tmp_path / "config.json"), f"file://{tmp_path}"):
        config = CvtConfig.from_pretrained(source)
        assert config.depth == (1, 4, 16)
        changed = CvtConfig.from_pretrained(source, id2label=["x"], drop_rate=[0.1] * 3)
        assert changed == config.changed(labels=("x",), drop_rate=(0.1, 0.1, 0.1))
    changed.save_pretrained(tmp_path / "new")
    assert CvtConfig.from_pretrained(tmp_path / "new") == changed
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        CvtConfig.from_pretrained(tmp_path.parent)
