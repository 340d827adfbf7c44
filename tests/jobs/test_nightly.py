"""A night: what its file says, but for what a flag says."""

from pathlib import Path

from jobs import nightly
from pipeline.contract.spec import ModelSpec, PolicySpec

FILE = """
inputs: {uris: [in]}
model: {source: m}
output: {uri: out, top_k: 3}
policy: {max_seconds: 3600, retry_failed: [timeout], full: true, max_failure_rate: 0.5}
"""


def policy(directory: Path, *flags: str) -> PolicySpec:
    path = directory / "night.yaml"
    path.write_text(FILE)
    return nightly.spec(nightly.build_parser().parse_args([str(path), *flags])).policy


def test_without_flags_the_file_counts(tmp_path: Path) -> None:
    expected = PolicySpec(
        max_seconds=3600, retry_failed=("timeout",), full=True, max_failure_rate=0.5
    )
    assert policy(tmp_path) == expected


def test_a_flag_overrides_the_file(tmp_path: Path) -> None:
    found = policy(tmp_path, "--max-seconds", "60", "--retry-failed", "not_found", "--allow-mixed")
    assert (found.max_seconds, found.retry_failed) == (60, ("not_found",))
    assert found.allow_mixed
    assert found.full


def test_zero_and_nothing_are_values_too(tmp_path: Path) -> None:
    """No second is left: nothing is fed any more, whatever the file allows."""
    found = policy(tmp_path, "--max-seconds", "0", "--retry-failed", "")
    assert found.max_seconds == 0
    assert found.stop_at(1000.0) == 1000.0
    assert found.retry_failed == ()


def test_a_night_can_have_a_shadow(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(FILE.replace("source: m", "source: m, shadow: old, dtype: float32"))

    def model(*flags: str) -> ModelSpec:
        return nightly.spec(nightly.build_parser().parse_args([str(path), *flags])).model

    assert model() == ModelSpec(source="m", shadow="old", dtype="float32")
    assert model("--shadow", "new") == ModelSpec(source="m", shadow="new", dtype="float32")
