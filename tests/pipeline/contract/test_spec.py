"""Every wrong setting is refused before anything is read, in one line that says what would do."""

import json
from typing import Any

import pytest

from pipeline.contract.errors import ERROR_CODES, UsageError
from pipeline.contract.spec import (
    ComputeSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)

GOOD: dict[type, dict[str, Any]] = {
    InputSpec: {"uris": ("photos",)},
    ModelSpec: {"source": "model"},
    OutputSpec: {"uri": "out", "top_k": 5},
    ComputeSpec: {},
    PolicySpec: {},
}
NAN = float("nan")

REFUSED = [
    # the dataclass, the wrong setting, and what the message must name
    (InputSpec, {"uris": ()}, ["INPUT", "directory"]),
    (InputSpec, {"uris": ("photos", "")}, ["INPUT", "empty"]),
    (InputSpec, {"format": "zip"}, ["--input-format", "'zip'", "auto, images, webdataset"]),
    (InputSpec, {"max_pixels": 0}, ["--max-pixels", "0", "1 or more"]),
    (InputSpec, {"max_bytes": -1}, ["--max-bytes", "-1", "1 or more"]),
    (ModelSpec, {"source": ""}, ["--model", "checkpoint"]),
    (ModelSpec, {"dtype": "int8"}, ["--dtype", "'int8'", "float32, bfloat16, float16"]),
    (ModelSpec, {"activation": "relu"}, ["--activation", "'relu'", "gelu, quick_gelu"]),
    (ModelSpec, {"image_size": 2}, ["--image-size", "2", "3 or more"]),
    (OutputSpec, {"uri": ""}, ["--output", "directory"]),
    (OutputSpec, {"top_k": None}, ["labels", "embeddings"]),
    (OutputSpec, {"top_k": 0}, ["--top-k", "0", "1 or more"]),
    (OutputSpec, {"rows_per_file": 0}, ["--rows-per-file", "0", "1 or more"]),
    (OutputSpec, {"scores": "max"}, ["--scores", "'max'", "softmax, sigmoid, logits"]),
    (OutputSpec, {"pooling": "max"}, ["--pooling", "'max'", "cls_norm, cls, mean"]),
    (
        OutputSpec,
        {"embedding_dtype": "bfloat16"},
        ["--embedding-dtype", "'bfloat16'", "float32, float16"],
    ),
    (OutputSpec, {"thresholds": NAN}, ["--thresholds", "nan", "number"]),
    (OutputSpec, {"thresholds": {"cat": NAN}}, ["--thresholds", "cat", "nan"]),
    (
        OutputSpec,
        {"top_k": None, "embeddings": True, "thresholds": 0.5},
        ["--thresholds", "labels"],
    ),
    (ComputeSpec, {"num_gpus": -1}, ["--num-gpus", "-1", "0 or more"]),
    (ComputeSpec, {"num_gpus": NAN}, ["--num-gpus", "nan", "0 or more"]),
    (ComputeSpec, {"num_actors": 0}, ["--num-actors", "0", "1 or more"]),
    (ComputeSpec, {"num_cpus_per_actor": 0}, ["--num-cpus-per-actor", "0", "1 or more"]),
    (ComputeSpec, {"batch_size": 0}, ["--batch-size", "0", "1 or more"]),
    (ComputeSpec, {"block_size": 0}, ["--block-size", "0", "1 or more"]),
    (PolicySpec, {"max_failure_rate": 1.1}, ["--max-failure-rate", "1.1", "0 to 1"]),
    (PolicySpec, {"max_failure_rate": NAN}, ["--max-failure-rate", "nan", "0 to 1"]),
    (
        PolicySpec,
        {"retry_failed": ("timeout", "teapot")},
        ["--retry-failed", "teapot", ", ".join(sorted(ERROR_CODES))],
    ),
]


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    REFUSED,
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refusal_names_the_field_and_what_it_accepts(
    kind: type, wrong: dict[str, Any], named: list[str]
) -> None:
    kind(**GOOD[kind])
    with pytest.raises(UsageError) as refusal:
        kind(**GOOD[kind] | wrong)
    message = str(refusal.value)
    assert all(word in message for word in named), message
    assert "\n" not in message
    assert int(refusal.value.exit_code) == 2


def test_limits_themselves_are_accepted() -> None:
    InputSpec(uris=("a",), max_pixels=1, max_bytes=1)
    ModelSpec(source="m", image_size=3)
    OutputSpec(uri="o", embeddings=True)
    ComputeSpec(num_gpus=0, num_actors=1, num_cpus_per_actor=1, batch_size=1, block_size=1)
    PolicySpec(max_failure_rate=0, retry_failed=tuple(ERROR_CODES))
    PolicySpec(max_failure_rate=1)


def test_spec_goes_through_json() -> None:
    spec = RunSpec(
        inputs=InputSpec(uris=("a", "b")),
        model=ModelSpec(source="m"),
        output=OutputSpec(uri="o", top_k=1, thresholds={"cat": 0.5}),
    )
    values = json.loads(json.dumps(spec.to_dict()))
    assert values["inputs"]["uris"] == ["a", "b"]
    assert values["output"]["thresholds"] == {"cat": 0.5}
    assert values["compute"]["block_size"] == ComputeSpec().block_size
