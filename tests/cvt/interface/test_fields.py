"""Whatever stands in a JSON file of a checkpoint: a value to compute with, or one line."""

import json
import math
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cvt import ConfigError, CvtConfig, CvtImageProcessor
from cvt.interface.fields import MAX_JSON_BYTES, read_json
from tests.support.models.oracle import SMALL

CONFIG = CvtConfig.from_dict(SMALL).to_dict()
PROCESSOR = CvtImageProcessor(size=32).to_dict()
ODD: list[Any] = [
    *(True, "", "7", "seven", "\ud800", [], {}, [[]], [None] * 3, {"a": 1}, ["x"] * 3),
    *(0, -1, 10**9, 10**400, 0.5, math.nan, math.inf, -math.inf, 1e308, [1e308] * 3),
    *([10**9] * 3, [-1] * 3, [0] * 3, [True] * 3, [math.nan] * 3, [1, 2], [1] * 10**4, [[1]] * 3),
]


def named(values: dict[str, Any]) -> list[str]:
    return [name for name in values if name not in ("architectures", "label2id")]


def refusal(make: Callable[[], CvtConfig | CvtImageProcessor]) -> str | None:
    """The one line, or None for a value that can be written and hashed."""
    try:
        made = make()
    except ConfigError as error:
        return str(error)
    json.dumps(made.to_dict(), allow_nan=False).encode()
    hash(made)
    return None


@pytest.mark.parametrize("field", [*named(CONFIG), "image_size", "num_labels", "hidden_act"])
def test_any_value_in_config_json(field: str) -> None:
    base = {name: value for name, value in CONFIG.items() if name != "id2label"}
    refusals = [refusal(partial(CvtConfig.from_dict, base | {field: odd})) for odd in ODD]
    for line in filter(None, refusals):
        assert field in line
        assert len(line) < 300
        assert line.isprintable()
    assert any(refusals)


@pytest.mark.parametrize("field", [*PROCESSOR, "crop_size"])
def test_any_value_in_preprocessor_config_json(field: str) -> None:
    base = PROCESSOR | {"do_center_crop": True}
    named = "it is for" if field == "image_processor_type" else field
    refusals = [refusal(partial(CvtImageProcessor.from_config, base | {field: odd})) for odd in ODD]
    for line in filter(None, refusals):
        assert named in line
        assert len(line) < 300
        assert line.isprintable()
    assert any(refusals)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth", 4),
        ("num_channels", "3"),
        ("num_channels", 3.0),
        ("num_channels", True),
        ("mlp_ratio", [None] * 3),
        ("mlp_ratio", [math.inf] * 3),
        ("embed_dim", [16.0, 32.0, 48.0]),
        ("embed_dim", [10**9] * 3),
        ("depth", [1, 2, 10**9]),
        ("patch_sizes", [10**6, 3, 3]),
        ("patch_padding", [2, 3, 1]),
        ("padding_kv", [1, 10**6, 1]),
        ("qkv_bias", [1, 1, 1]),
        ("image_size", []),
        ("image_size", [224, 384]),
        ("hidden_act", ["gelu"]),
        ("problem_type", 1),
        ("initializer_range", -1),
        ("num_heads", [0, 4, 6]),
    ],
)
def test_fields_of_config_json_that_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        CvtConfig.from_dict(CONFIG | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", True),
        ("size", 224.0),
        ("size", 10**9),
        ("size", {"height": [224], "width": [224]}),
        ("size", {"height": 224}),
        ("size", {"shortest_edge": None}),
        ("image_std", [0.2, None, 0.2]),
        ("crop_pct", 1e-9),
        ("image_std", 1e-300),
        ("image_std", [-1, 1, 1]),
        ("image_mean", [0.5]),
        ("image_mean", "0.5"),
        ("image_mean", {"r": 1, "g": 1, "b": 1}),
        ("rescale_factor", "1/255"),
        ("rescale_factor", 0),
        ("do_resize", "false"),
        ("do_normalize", 1),
        ("resample", "cubic"),
        ("resample", True),
        ("resample", 2.5),
    ],
)
def test_fields_of_preprocessor_config_json_that_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^preprocessor_config\.json: {field} "):
        CvtImageProcessor.from_config(PROCESSOR | {field: value})


def test_lists_are_as_good_as_tuples() -> None:
    config = CvtConfig(embed_dim=[64, 192, 384], labels=["a", "b"])
    assert config == CvtConfig(labels=("a", "b"))
    processor = CvtImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=0.5)  # type: ignore[arg-type]
    assert processor == CvtImageProcessor(image_mean=(0.1, 0.2, 0.3), image_std=(0.5,) * 3)


@pytest.mark.parametrize("name", ["bicubic", "BICUBIC", "Resampling.BICUBIC", "PIL.Image.BICUBIC"])
def test_a_filter_by_its_name(name: str) -> None:
    assert CvtImageProcessor.from_config(PROCESSOR | {"resample": name}).resample == 3


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["cat", "dog"], ("cat", "dog")),
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),
        ({0: "cat", 1: "dog"}, ("cat", "dog")),
        ({"0": "crane", "1": "crane"}, ("crane", "crane")),
        ({"0": 7, "1": 1.5}, ("7", "1.5")),
        ({}, ()),
        ([], ()),
    ],
)
def test_names_of_classes(names: Any, labels: tuple[str, ...]) -> None:
    assert CvtConfig.from_dict({"id2label": names}).labels == labels


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"cat": 0, "dog": 1}, "a list of names, or a map from each class's number"),
        ({"0": "cat", "00": "dog"}, "a list of names, or a map from each class's number"),
        ({"0": "cat", "2": "dog"}, "from 0 to N-1 exactly once; it lacks 1"),
        ({"1": "cat", "2": "dog"}, "from 0 to N-1 exactly once; it lacks 0"),
        ({"0": None}, "id2label: the name of class 0 must be a text, not None"),
        (["cat", ["dog"]], r"id2label: the name of class 1 must be a text, not \['dog'\]"),
        (["\udcff"], "the name of class 0 must be a text"),
        (["cat", "x" * 2001], "id2label: the name of class 1 must have at most 2000 characters"),
        ("cat", "id2label must be a list of class names, not 'cat'"),
        (7, "id2label must be a list of class names, not 7"),
    ],
)
def test_names_of_classes_that_are_refused(names: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CvtConfig.from_dict({"id2label": names})


def test_labels_without_names_are_counted_with_measure() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in (10**9, -1, 2.0, "seven", True):
        with pytest.raises(ConfigError, match="num_labels must be a whole number"):
            CvtConfig.from_dict({"num_labels": count})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_encoding_of_unicode(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('["Häher"]', encoding)
    assert read_json(path) == ["Häher"]


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 10**5, b"\xff\xfe\xff", b"9" * 5000, b"\0"])
def test_what_is_not_json(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"^config\.json is not JSON: "):
        read_json(path)


def test_json_larger_than_any_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(MAX_JSON_BYTES * 1000)
    with pytest.raises(ConfigError, match=r"config\.json is larger than"):
        read_json(path)
