"""What a person meets at the command line before any image is read."""

import argparse
import importlib
from pathlib import Path

import pytest

from tests.support.commands import CallJob, run_job
from tests.support.inputs.images import write_images

RUN_FLAGS = {
    "--activation",
    "--allow-local-files",
    "--allow-mixed",
    "--allow-private-urls",
    "--allow-protocols",
    "--batch-size",
    "--block-size",
    "--compile",
    "--completion",
    "--deadline",
    "--decode",
    "--debug",
    "--discard-open-run",
    "--dry-run",
    "--dtype",
    "--embedding-dtype",
    "--exclude",
    "--extensions",
    "--fail-on-drift",
    "--full",
    "--image-column",
    "--image-size",
    "--input-format",
    "--json",
    "--keep",
    "--limit",
    "--max-bytes",
    "--max-decode-seconds",
    "--max-failure-rate",
    "--max-pixels",
    "--max-seconds",
    "--model",
    "--normalize",
    "--num-actors",
    "--num-cpus-per-actor",
    "--num-gpus",
    "--output",
    "--pooling",
    "--quiet",
    "--retry-failed",
    "--reuse-content",
    "--review",
    "--rows-per-file",
    "--runtime",
    "--sample",
    "--scores",
    "--shadow",
    "--sink",
    "--thresholds",
    "--top-k",
    "--uri-column",
    "--version",
    "--wait-for-nodes",
}


FINETUNE_FLAGS = {
    *("--activation", "--champion", "--completion", "--corrections", "--debug", "--dry-run"),
    "--fail-if-worse",
    *("--image-size", "--json", "--penalty", "--label-column", "--label-from", "--labels"),
    *("--max-failure-rate", "--min-accuracy", "--model", "--output", "--pictures", "--quiet"),
    "--split-by",
    *("--train", "--val-share", "--version"),
    *("--discard-open-run", "--exclude", "--image-column", "--input-format", "--num-gpus"),
    *("--augment", "--batch-size", "--epochs", "--layer-decay", "--learning-rate", "--num-workers"),
    *("--class-weights", "--ema", "--ignore", "--mixup", "--multi-label", "--val-labels"),
    *("--patience", "--seed", "--uri-column", "--weight-decay"),
}


def flags(job: str) -> set[str]:
    parser: argparse.ArgumentParser = importlib.import_module(f"jobs.{job}").build_parser()
    options = {option for action in parser._actions for option in action.option_strings}
    return options - {"-h", "--help", "--no-compile", "--no-corrections", "--no-normalize"}


def test_adding_a_flag_is_a_decision() -> None:
    assert flags("classify") == RUN_FLAGS | {"--with-embeddings"}
    assert flags("embed") == RUN_FLAGS | {"--with-labels"}
    assert flags("finetune") == FINETUNE_FLAGS


def test_every_flag_is_explained() -> None:
    for job in ("classify", "embed", "finetune"):
        parser = importlib.import_module(f"jobs.{job}").build_parser()
        unexplained = {a.dest for a in parser._actions if not a.help and not a.choices}
        assert not unexplained


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--dtype", "int7"], "invalid choice: 'int7'"),
        (["--runtime", "openvino", "--dtype", "float16"], "--runtime openvino has no float16"),
        (["--dtype", "tf32", "--num-gpus", "0"], "; drop --dtype or say auto"),
        (["--decode", "gpu"], "--decode gpu needs GPUs, and this run has none; use fast"),
        (["--decode", "gpu", "--num-gpus", "0"], "--decode gpu needs GPUs"),
        (["--decode", "gpu", "--runtime", "openvino"], "--runtime openvino runs on CPUs; drop one"),
        (["--top-k", "0"], "--top-k is 0; it must be 1 or more"),
        (["--max-failure-rate", "2"], "--max-failure-rate is 2.0; it must be from 0 to 1"),
        (["--retry-failed", "tired"], "--retry-failed has unknown error codes: tired"),
        (["--thresholds", "nowhere.json"], "neither a number nor a JSON file"),
        (
            ["--model", "/nowhere"],
            "cannot load the model: /nowhere is neither an existing path nor",
        ),
        (["--model", "nowhere"], "cannot load the model"),
        (["--num-gpus", "5"], "--num-gpus 5 is more than the 0 of the cluster"),
        (["--num-actors", "5000"], "lower --num-actors or --num-cpus-per-actor"),
        (["--num-actors", "8:1"], "--num-actors is '8:1'; it must be 1 or more, or MIN:MAX, such"),
    ],
)
@pytest.mark.usefixtures("ray_local")
def test_wrong_usage_is_one_line_and_exit_code_2(
    change: list[str], complaint: str, tmp_path: Path, checkpoint: Path, call_job: CallJob
) -> None:
    write_images(tmp_path / "in", 1)
    done = call_job(
        "classify", tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint, *change
    )
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not (tmp_path / "out" / "data").exists()


def test_an_input_that_does_not_exist_leaves_nothing_behind(
    tmp_path: Path, checkpoint: Path
) -> None:
    """In a process of its own, whose stderr and exit code are what a shell gets."""
    done = run_job("embed", tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'in'} does not exist; check the INPUT argument\n"
    assert not (tmp_path / "out").exists()


def test_gpus_that_there_are_not_leave_nothing_behind(tmp_path: Path, checkpoint: Path) -> None:
    write_images(tmp_path / "in", 1)
    options = ("--output", tmp_path / "out", "--model", checkpoint, "--num-gpus", "77")
    for dry_run in ((), ("--dry-run",)):
        done = run_job("classify", tmp_path / "in", *options, *dry_run)
        assert done.returncode == 2
        assert done.stderr.startswith("error: --num-gpus 77 is more than the ")
        assert not (tmp_path / "out").exists()
