"""CvtConfig against transformers', and what it refuses."""

import dataclasses
import json
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
