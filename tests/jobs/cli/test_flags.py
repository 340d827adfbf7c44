"""Flags are the settings of the specs: what is given at a command line is what the run gets."""

import argparse
from pathlib import Path

import pytest

from jobs import classify, embed, nightly, relabel
from jobs.cli import flags
from jobs.cli.parser import WIDTH
from pipeline.contract.spec import (
    ComputeSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RelabelSpec,
    RunSpec,
)

REQUIRED = ("in", "--output", "out", "--model", "m")
GROUPS = ["input", "model", "output", "compute", "policy", "increments"]


def run_spec(*more: str) -> RunSpec:
    return flags.run_spec(classify.build_parser().parse_args([*REQUIRED, *more]))


def test_what_no_flag_says_is_the_default_of_the_spec() -> None:
    assert run_spec() == RunSpec(
        inputs=InputSpec(uris=("in",)),
        model=ModelSpec(source="m"),
        output=OutputSpec(uri="out", top_k=5),
    )


def test_every_flag_reaches_the_spec(tmp_path: Path) -> None:
    by_label = tmp_path / "thresholds.json"
    by_label.write_text('{"cat": 0.3, "*": 1}')
    given = run_spec(
        *("--input-format", "list", "--extensions", "jpg, png", "--uri-column", "u"),
        *("--image-column", "i", "--keep", "*", "--allow-private-urls", "--max-pixels", "7"),
        *("--exclude", "*.gif", "--exclude", "a,b/", "--allow-local-files"),
        *("--allow-protocols", "sftp,ftp"),
        *("--max-bytes", "8", "--activation", "gelu", "--image-size", "64", "--dtype", "bfloat16"),
        *("--runtime", "openvino", "--decode", "exact", "--top-k", "2", "--scores", "sigmoid"),
        *("--thresholds", str(by_label), "--with-embeddings", "--pooling", "mean", "--normalize"),
        *("--embedding-dtype", "float16", "--rows-per-file", "9", "--review", "0"),
        *("--sink", "lance", "--num-gpus", "0.5", "--num-actors", "3", "--num-cpus-per-actor", "4"),
        *("--batch-size", "5", "--block-size", "6", "--max-failure-rate", "0.25"),
        *("--fail-on-drift", "--retry-failed", "timeout,not_found", "--reuse-content"),
        *("--max-seconds", "0", "--deadline", "5:30", "--full", "--discard-open-run"),
    )
    assert given == RunSpec(
        inputs=InputSpec(
            uris=("in",),
            format="list",
            extensions=("jpg", "png"),
            uri_column="u",
            image_column="i",
            keep=("*",),
            allow_private_urls=True,
            exclude=("*.gif", "a,b/"),
            allow_local_files=True,
            allow_protocols=("sftp", "ftp"),
            max_pixels=7,
            max_bytes=8,
        ),
        model=ModelSpec(
            source="m",
            activation="gelu",
            image_size=64,
            dtype="bfloat16",
            runtime="openvino",
            decode="exact",
        ),
        output=OutputSpec(
            uri="out",
            top_k=2,
            scores="sigmoid",
            thresholds={"cat": 0.3, "*": 1.0},
            embeddings=True,
            pooling="mean",
            normalize=True,
            embedding_dtype="float16",
            rows_per_file=9,
            review=0,
            sink="lance",
        ),
        compute=ComputeSpec(
            num_gpus=0.5, num_actors=3, num_cpus_per_actor=4, batch_size=5, block_size=6
        ),
        policy=PolicySpec(
            max_failure_rate=0.25,
            fail_on_drift=True,
            retry_failed=("timeout", "not_found"),
            reuse_content=True,
            max_seconds=0.0,
            deadline="5:30",
            full=True,
            discard_open_run=True,
        ),
    )
    assert run_spec("--num-actors", "1:8").compute == ComputeSpec(num_actors="1:8")
    several = classify.build_parser().parse_args(["a", "b", *REQUIRED[1:]])
    assert flags.run_spec(several).inputs.uris == ("a", "b")
    assert run_spec("--allow-mixed").policy.allow_mixed
    assert not run_spec("--no-normalize").output.normalize


def test_relabelling_takes_its_settings_from_flags(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text('{"cat": "animal"}')
    arguments = relabel.build_parser().parse_args(
        ["old", "--output", "new", "--label-map", str(names), "--thresholds", "0.5", "--full"]
    )
    assert flags.from_flags(RelabelSpec, relabel.SETTINGS, arguments) == RelabelSpec(
        source="old", output="new", label_map={"cat": "animal"}, thresholds=0.5, full=True
    )


@pytest.mark.parametrize(
    ("parser", "titles"),
    [
        (classify.build_parser(), GROUPS),
        (embed.build_parser(), GROUPS),
        (nightly.build_parser(), ["increments", "model"]),
    ],
    ids=lambda value: value.prog if isinstance(value, argparse.ArgumentParser) else "",
)
def test_help_is_grouped(parser: argparse.ArgumentParser, titles: list[str]) -> None:
    lines = parser.format_help().splitlines()
    headings = [line.removesuffix(":") for line in lines if line[:1].islower() and line[-1] == ":"]
    assert headings[-len(titles) :] == titles


def test_help_does_not_follow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        texts.add(classify.build_parser().format_help())
    assert len(texts) == 1
    assert max(map(len, texts.pop().splitlines())) <= WIDTH
