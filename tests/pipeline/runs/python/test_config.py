"""The nightly's YAML file: what it says becomes a spec, what it says wrongly becomes one line."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import (
    ComputeSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.runs.python.config import read_config, spec_from_config
from tests.support.commands import REPOSITORY


def minimal(**sections: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "inputs": {"uris": ["s3://a", "/b"]},
        "model": {"source": "m"},
        "output": {"uri": "o", "top_k": 3},
    }
    for name, section in sections.items():
        whole[name] = whole.get(name, {}) | section
    return whole


def test_the_file_is_the_tree_of_the_spec() -> None:
    content = minimal(
        output={"thresholds": {"cat": 0.3, "*": 0.6}},
        compute={"num_gpus": 0.5},
        policy={"retry_failed": ["timeout"], "deadline": "5:30"},
    )
    assert spec_from_config(content, "c.yaml") == RunSpec(
        inputs=InputSpec(uris=("s3://a", "/b")),
        model=ModelSpec(source="m"),
        output=OutputSpec(uri="o", top_k=3, thresholds={"cat": 0.3, "*": 0.6}),
        compute=ComputeSpec(num_gpus=0.5),
        policy=PolicySpec(retry_failed=("timeout",), deadline="5:30"),
    )


def test_what_has_a_colon_is_text(tmp_path: Path) -> None:
    """To YAML 1.1, 1:8 is 68 and 22:30 is 1350."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "inputs: {uris: [a]}\nmodel: {source: m}\noutput: {uri: o, top_k: 3}\n"
        "compute:\n  num_actors: 1:8\n  num_gpus: 0.5\npolicy:\n  deadline: 22:30\n"
    )
    spec = spec_from_config(read_config(path), "c.yaml")
    assert (spec.compute.num_actors, spec.compute.num_gpus) == ("1:8", 0.5)
    assert (spec.policy.deadline, spec.output.top_k) == ("22:30", 3)


def test_the_example_for_a_cluster_is_valid() -> None:
    path = REPOSITORY / "jobs" / "deploy" / "nightly.yaml"
    assert spec_from_config(read_config(path), str(path)).policy.deadline == "05:30"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            minimal(policy={"dead_line": "1:00"}),
            "no field policy.dead_line; did you mean policy.dea",
        ),
        (minimal(sources={"x": 1}), "no field sources; known: inputs, model, output, compute"),
        (minimal(output={"top_k": "many"}), "output.top_k: Input should be a valid integer"),
        (minimal(inputs={"uris": ["a", 3]}), "c.yaml: inputs.uris: Input should be a valid string"),
        (
            minimal(compute={"batch_size": "many"}),
            "c.yaml: compute.batch_size: Input should be a valid integer, unable to parse string "
            "as an integer or 'auto', not 'many'",
        ),
        (
            minimal(output={"thresholds": {"cat": "high"}}),
            "c.yaml: output.thresholds: Input should be a valid number or a valid number, unable",
        ),
        (minimal(output={"pooling": "max"}), "'cls_norm', 'cls' or 'mean', not 'max'"),
        (
            minimal(policy={"deadline": "25:00"}),
            "policy.deadline is '25:00'; it must be a time of day, HH:MM",
        ),
        (
            minimal(policy={"max_failure_rate": 3}),
            "policy.max_failure_rate is 3.0; it must be from 0 to 1",
        ),
        ({"inputs": {"uris": ["x"]}, "model": {"source": "m"}}, "output: Field required"),
    ],
)
def test_messages_name_the_field_and_what_is_accepted(
    content: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        spec_from_config(content, "c.yaml")
    assert str(caught.value).startswith("c.yaml: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_text_is_the_setting_that_a_section_cannot_do_without() -> None:
    for inputs in ("s3://a", ["s3://a"]):
        content = {"inputs": inputs, "model": "MODELS", "output": {"uri": "o", "top_k": 3}}
        assert spec_from_config(content, "c.yaml") == RunSpec(
            inputs=InputSpec(uris=("s3://a",)),
            model=ModelSpec(source="MODELS"),
            output=OutputSpec(uri="o", top_k=3),
        )
    with pytest.raises(UsageError, match="nothing to write: give output"):
        spec_from_config({"inputs": "s3://a", "model": "m", "output": "o"}, "c.yaml")
    for wrong in ({"model": ["m"]}, {"compute": "fast"}, {"model": 3}):
        with pytest.raises(UsageError, match=f"c.yaml: {next(iter(wrong))}: Input should be"):
            spec_from_config(minimal() | wrong, "c.yaml")


@pytest.mark.parametrize("text", ["a: [", "- x", "", "\xff"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=re.escape(str(path))):
        read_config(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_config(tmp_path / "none.yaml")


def test_the_deadline_is_the_next_time_that_the_clock_shows_it() -> None:
    noon = datetime(2026, 3, 1, 12, 0).timestamp()
    assert PolicySpec(deadline="12:30").stop_at(noon) == noon + 1800
    assert PolicySpec(deadline="11:30").stop_at(noon) == noon + 23.5 * 3600
    assert PolicySpec(deadline="12:30", max_seconds=60).stop_at(noon) == noon + 60
    assert PolicySpec().stop_at(noon) is None
