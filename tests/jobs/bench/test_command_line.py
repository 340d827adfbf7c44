"""Which subcommand a command line is, and what run its flags describe."""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cvt.config import PRESETS
from jobs.bench import __main__ as bench
from jobs.bench.arguments import run_spec
from jobs.bench.contest.rounds import our_contestants
from jobs.bench.synthetic.presets import PRESET_NAMES
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import ComputeSpec, InputSpec, ModelSpec, OutputSpec, RunSpec

SMALL = ("--preset", "small")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What would be measured, in place of measuring it."""
    found: list[argparse.Namespace] = []

    def measure(a: argparse.Namespace) -> ExitCode:
        found.append(a)
        return ExitCode.OK

    instead = {name: replace(one, measure=measure) for name, one in bench.SUBCOMMANDS.items()}
    monkeypatch.setattr(bench, "SUBCOMMANDS", instead)
    return found


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    return bench.main()


class TestDirectoryNamedAsASubcommand:
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "images").mkdir()
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("words", "inputs"),
        [
            (["./images", *SMALL], ["./images"]),
            (["run", "images", *SMALL], ["images"]),
            ([*SMALL, "images"], ["images"]),
            ([*SMALL, "--", "images"], ["images"]),
            (["photos", "images", *SMALL], ["photos", "images"]),
            (["image", *SMALL], ["image"]),
        ],
        ids=" ".join,
    )
    def test_it_is_an_input(
        self,
        words: list[str],
        inputs: list[str],
        measured: list[argparse.Namespace],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert start(monkeypatch, *words) == 0
        (found,) = measured
        assert (found.subcommand, found.inputs) == ("run", inputs)
        assert not capsys.readouterr().err

    def test_alone_it_is_the_subcommand_and_a_line_says_so(
        self,
        measured: list[argparse.Namespace],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert start(monkeypatch, "images", "there", "--number", "3") == 0
        (found,) = measured
        assert (found.subcommand, found.directory, found.number) == ("images", Path("there"), 3)
        assert capsys.readouterr().err == "images is the subcommand; the INPUT is ./images\n"

    def test_and_is_written_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert start(monkeypatch, "images", "images", "--number", "2") == 0
        assert len(list((tmp_path / "images").glob("*.jpg"))) == 2


def test_help_names_the_rule_and_every_subcommand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, "--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert bench.RULE in text
    for one in bench.SUBCOMMANDS.values():
        assert f"{one.name} {one.help}" in text


@pytest.mark.parametrize("name", bench.SUBCOMMANDS)
def test_each_has_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, name, "--help")
    assert ended.value.code == 0
    assert f"usage: python -m jobs.bench {name} [-h]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [[], ["photos"], ["plan", "--rows", "many"], ["growth", "--nothing-like-it"]]
)
def test_wrong_usage(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, *words)
    assert ended.value.code == 2


def spec_of(tmp_path: Path, *words: str) -> RunSpec:
    return run_spec(bench.build_parser().parse_args(["run", "INPUT", *words]), tmp_path)


def test_a_run_without_flags_is_that_of_the_jobs(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "--model", "SOURCE") == RunSpec(
        inputs=InputSpec(uris=("INPUT",)),
        model=ModelSpec(source="SOURCE"),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=5),
    )


def test_every_flag_of_the_model_and_the_cluster_reaches_the_run(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path,
        *("--model", "M", "--dtype", "bfloat16", "--runtime", "openvino", "--decode", "exact"),
        *("--input-format", "list", "--output", "OUT", "--num-gpus", "0.5", "--num-actors", "3"),
        *("--num-cpus-per-actor", "2", "--batch-size", "7", "--block-size", "9", "--compile"),
        *("--wait-for-nodes", "7"),
    )
    assert spec.model == ModelSpec(source="M", dtype="bfloat16", runtime="openvino", decode="exact")
    assert (spec.inputs.format, spec.output.uri) == ("list", "OUT")
    default = ComputeSpec()
    unchanged = [
        field.name
        for field in fields(ComputeSpec)
        if getattr(spec.compute, field.name) == getattr(default, field.name)
    ]
    assert unchanged == []


def test_a_bucket_is_either_made_up_or_an_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else its requests would go to the made-up one."""
    assert start(monkeypatch, "listing", "s3://photos", "--late", "30") == ExitCode.USAGE
    assert "--late makes up a bucket; drop it, or the INPUT" in capsys.readouterr().err


def test_actors_hold_a_ledger_that_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, "listing", "--shards", "4") == ExitCode.USAGE
    assert "--shards needs --tasks" in capsys.readouterr().err


def test_names_of_presets() -> None:
    assert (*PRESETS, "small") == PRESET_NAMES


def test_contestants_differ_in_their_runtime_alone(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "--model", "SOURCE")
    ours = our_contestants(spec)
    assert {replace(s, model=replace(s.model, runtime="torch")) for s in ours.values()} == {spec}
