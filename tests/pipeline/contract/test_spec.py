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
    PoolSize,
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
    (InputSpec, {"uris": ()}, ["inputs.uris", "directory"]),
    (InputSpec, {"uris": ("photos", "")}, ["inputs.uris", "empty"]),
    (InputSpec, {"format": "zip"}, ["inputs.format", "'zip'", "auto, images, webdataset"]),
    (InputSpec, {"max_pixels": 0}, ["inputs.max_pixels", "0", "1 or more"]),
    (InputSpec, {"max_bytes": -1}, ["inputs.max_bytes", "-1", "1 or more"]),
    (ModelSpec, {"source": ""}, ["model.source", "checkpoint"]),
    (ModelSpec, {"dtype": "int8"}, ["model.dtype", "'int8'", "auto, float32, tf32, bfloat16"]),
    (ModelSpec, {"dtype": "tf32", "runtime": "openvino"}, ["openvino has no tf32", "model.dtype"]),
    (ModelSpec, {"activation": "relu"}, ["model.activation", "'relu'", "gelu, quick_gelu"]),
    (ModelSpec, {"image_size": 2}, ["model.image_size", "2", "3 or more"]),
    (OutputSpec, {"uri": ""}, ["output.uri", "directory"]),
    (OutputSpec, {"top_k": None}, ["labels", "embeddings"]),
    (OutputSpec, {"top_k": 0}, ["output.top_k", "0", "1 or more"]),
    (OutputSpec, {"rows_per_file": 0}, ["output.rows_per_file", "0", "1 or more"]),
    (OutputSpec, {"scores": "max"}, ["output.scores", "'max'", "softmax, sigmoid, logits"]),
    (OutputSpec, {"pooling": "max"}, ["output.pooling", "'max'", "cls_norm, cls, mean"]),
    (
        OutputSpec,
        {"embedding_dtype": "bfloat16"},
        ["output.embedding_dtype", "'bfloat16'", "float32, float16"],
    ),
    (OutputSpec, {"thresholds": NAN}, ["output.thresholds", "nan", "number"]),
    (OutputSpec, {"thresholds": {"cat": NAN}}, ["output.thresholds", "cat", "nan"]),
    (
        OutputSpec,
        {"top_k": None, "embeddings": True, "thresholds": 0.5},
        ["output.thresholds", "labels"],
    ),
    (ComputeSpec, {"num_gpus": -1}, ["compute.num_gpus", "-1", "0 or more"]),
    (ComputeSpec, {"num_gpus": NAN}, ["compute.num_gpus", "nan", "0 or more"]),
    (ComputeSpec, {"num_actors": 0}, ["compute.num_actors", "0", "1 or more"]),
    *(
        (ComputeSpec, {"num_actors": wrong}, ["compute.num_actors", repr(wrong), "MIN:MAX"])
        for wrong in ("8:1", "0:4", "1:", ":4", "a:b", "", "1:2:3", "-1:2", "1:8\n", "9" * 30)
    ),
    (ComputeSpec, {"num_cpus_per_actor": 0}, ["compute.num_cpus_per_actor", "0", "1 or more"]),
    (ComputeSpec, {"batch_size": 0}, ["compute.batch_size", "0", "1 or more"]),
    (ComputeSpec, {"block_size": 0}, ["compute.block_size", "0", "1 or more"]),
    (PolicySpec, {"max_failure_rate": 1.1}, ["policy.max_failure_rate", "1.1", "0 to 1"]),
    (PolicySpec, {"max_failure_rate": NAN}, ["policy.max_failure_rate", "nan", "0 to 1"]),
    (
        PolicySpec,
        {"retry_failed": ("timeout", "teapot")},
        ["policy.retry_failed", "teapot", ", ".join(sorted(ERROR_CODES))],
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


@pytest.mark.parametrize(
    ("said", "actors"), [(3, (3, 3)), ("3", (3, 3)), ("1:8", (1, 8)), ("2:2", (2, 2))]
)
def test_a_pool_has_one_size_or_two(said: int | str, actors: tuple[int, int]) -> None:
    compute = ComputeSpec(num_actors=said)
    assert compute.actors == PoolSize(*actors)
    assert compute.is_elastic == (actors[0] < actors[1])
    assert not ComputeSpec().is_elastic


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
