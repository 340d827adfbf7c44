"""Typing: mistakes, the program's own name, its version, and what a shell completes."""

import shutil
import subprocess
import sys

import pytest

from jobs import classify, embed, nightly
from jobs.bench import __main__ as bench
from jobs.cli import flags
from pipeline import __version__

RUN = ["in", "--output", "out", "--model", "m"]


def complaint(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        classify.build_parser().parse_args(words)
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in", "--ouput", "out", "--model", "m"], "--ouput; did you mean --output?"),
        (["in", "--ouput=out"], "--ouput; did you mean --output?"),
        (["in", "-output", "out"], "-output; did you mean --output?"),
        ([*RUN, "--max_seconds", "3"], "--max_seconds; did you mean --max-seconds?"),
        ([*RUN, "--Top-K", "3"], "--Top-K; did you mean --top-k?"),
        ([*RUN, "--zzzz"], "--zzzz; see python -m jobs.classify --help"),
    ],
)
def test_a_flag_that_there_is_not_is_named_first(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint(capsys, words) == f"error: there is no flag {message}"


def test_what_is_missing_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, ["in", "--output", "out"])
    assert told.startswith("error: the following arguments are required: --model; see python -m")


def test_what_is_no_flag_is_left_alone() -> None:
    parser = classify.build_parser()
    words = [*RUN[1:], "--max-sec", "1", "--batch-size", "4", "--uri-column=--x", "--", "--in"]
    assert flags.run_spec(parser.parse_args(words)).inputs.uris == ("--in",)


def test_mistyped_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.with_subcommand(["netwrok", "--rounds", "2"])
    told = capsys.readouterr().err
    assert told == "error: there is no subcommand or INPUT netwrok; did you mean network?\n"
    assert bench.with_subcommand(["./netwrok"]) == ["run", "./netwrok"]


@pytest.mark.parametrize("called", ["cvt-classify", "/usr/bin/cvt-classify"])
def test_a_program_calls_itself_as_it_was_called(
    called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert classify.build_parser().format_help().startswith("usage: cvt-classify INPUT")
    monkeypatch.setattr(sys, "argv", ["jobs/embed.py"])
    assert embed.build_parser().format_help().startswith("usage: python -m jobs.embed INPUT")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["--version", "in"]):
        with pytest.raises(SystemExit) as stopped:
            nightly.build_parser().parse_args(words)
        assert not stopped.value.code
        assert capsys.readouterr().out == f"cvt-nightly {__version__}\n"


def completion(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        bench.build_parser().parse_args(["--completion", shell])
    assert not stopped.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["gro"], {"growth"}),
        (["run", "--input-f"], {"--input-format"}),
        (["run", "in", "--runtime", ""], {"torch", "openvino"}),
        (["run", "photo"], set()),
    ],
)
def test_bash_completes(
    typed: list[str], offered: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = " ".join(f"'{word}'" for word in ["cvt-bench", *typed])
    script = (
        f"{completion('bash', capsys)}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}\n"
        'COMPREPLY=(); _cvt_bench; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered
    assert not done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = completion(shell, capsys)
    assert "growth" in script
    assert "input-format" in script
    if found := shutil.which(shell):
        subprocess.run([found, "--no-execute", "/dev/stdin"], input=script, text=True, check=True)
