"""What is wrong is named as the person who gave it wrote it, and ends with exit code 2."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from jobs import classify, compact, embed, nightly, relabel
from jobs.cli import command
from pipeline.monitoring.log import OURS, is_displayed
from tests.support.commands import REPOSITORY

Complaint = Callable[..., str]
RUN = ("in", "--output", "out", "--model", "m")


@pytest.fixture
def complaint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complaint:
    """The last line on stderr of a job that must end with exit code 2."""
    monkeypatch.setattr(command, "_log_to_stderr", lambda *_: None)
    monkeypatch.setattr(command, "_interrupt_on_sigterm", threading.Event)

    def call(job: Any, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["job", *map(str, arguments)])
        try:
            code = job.main()
        except SystemExit as stop:  # of argparse
            code = stop.code
        printed = capsys.readouterr()
        assert code == 2
        assert not printed.out
        return printed.err.splitlines()[-1]

    return call


def config(directory: Path, **sections: dict[str, Any]) -> Path:
    content: dict[str, dict[str, Any]] = {
        "inputs": {"uris": ["in"]},
        "model": {"source": "m"},
        "output": {"uri": "out", "top_k": 3},
    }
    for name, section in sections.items():
        content[name] = content.get(name, {}) | section
    path = directory / "night.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("flags", "sections", "called"),
    [
        (
            ["--max-failure-rate", "2"],
            {"policy": {"max_failure_rate": 2.0}},
            ("--max-failure-rate is 2.0", "policy.max_failure_rate is 2.0"),
        ),
        (
            ["--deadline", "25:00"],
            {"policy": {"deadline": "25:00"}},
            ("--deadline is '25:00'", "policy.deadline is '25:00'"),
        ),
        (
            ["--top-k", "0"],
            {"output": {"top_k": 0}},
            ("--top-k is 0; it must be 1 or more", "output.top_k is 0; it must be 1 or more"),
        ),
        (
            ["--extensions", ""],
            {"inputs": {"extensions": []}},
            ("--extensions is empty", "inputs.extensions is empty"),
        ),
        (
            [""],
            {"inputs": {"uris": ["in", ""]}},
            ("one INPUT is empty", "one inputs.uris is empty"),
        ),
        (
            ["--runtime", "openvino", "--dtype", "float16"],
            {"model": {"runtime": "openvino", "dtype": "float16"}},
            (
                "--runtime openvino has no float16; --dtype bfloat16 is as small",
                "model.runtime openvino has no float16; model.dtype bfloat16 is as small",
            ),
        ),
        (
            ["--sink", "lance", "--allow-mixed"],
            {"output": {"sink": "lance"}, "policy": {"allow_mixed": True}},
            (
                "--sink lance excludes --allow-mixed",
                "output.sink lance excludes policy.allow_mixed",
            ),
        ),
    ],
)
def test_a_setting_is_called_as_it_was_given(
    flags: list[str],
    sections: dict[str, Any],
    called: tuple[str, str],
    complaint: Complaint,
    tmp_path: Path,
) -> None:
    at_command_line, in_file = called
    assert complaint(classify, *flags, *RUN).startswith(f"error: {at_command_line}")
    path = config(tmp_path, **sections)
    assert complaint(nightly, path).startswith(f"error: {path}: {in_file}")


def test_flags_and_file_of_a_night_are_told_apart(complaint: Complaint, tmp_path: Path) -> None:
    path = config(tmp_path, output={"sink": "lance"})
    assert complaint(nightly, path, "--max-seconds", "-1").startswith("error: --max-seconds is -1")
    told = complaint(nightly, path, "--allow-mixed")
    assert told.startswith("error: output.sink lance excludes --allow-mixed")
    assert "--full redoes everything" in told


def test_the_other_jobs_name_their_own_flags(complaint: Complaint) -> None:
    assert "ask for them with --with-labels" in complaint(embed, *RUN, "--thresholds", "1")
    nothing = complaint(relabel, "old", "--output", "new")
    assert "give --label-map, --thresholds, --head, --model, --corrections or --top-k" in nothing
    scores = complaint(relabel, "old", "--output", "new", "--top-k", "2", "--scores", "sigmoid")
    assert scores == "error: --scores needs --head: stored scores cannot be converted"
    days = complaint(compact, "out", "--keep-days", "0.5")
    assert days == "error: --keep-days is 0.5; it must be 1 or more"


@pytest.mark.parametrize("job", [classify, embed, nightly, relabel])
def test_typos_are_refused(job: Any, complaint: Complaint, tmp_path: Path) -> None:
    given: dict[Any, tuple[str, ...]] = {
        nightly: (str(config(tmp_path)),),
        relabel: ("old", "--output", "new"),
    }
    told = complaint(job, *given.get(job, RUN), "--fulll")
    assert told == "error: there is no flag --fulll; did you mean --full?"


def test_the_log_spells_settings_too() -> None:
    """In a process of its own, where the log is the command's."""
    code = """
import logging, sys
from jobs import nightly
from jobs.cli import command, flags

def job(arguments):
    logging.getLogger("pipeline.output").warning("mind <output.sink> and <policy.full>")
    return 0

sys.exit(command.main(job, nightly.build_parser(), flags.INCREMENTS))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "night.yaml"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "mind output.sink and --full\n"


@pytest.mark.parametrize("saved", ["", "1,024 images are saved; "])
def test_ctrl_c_says_what_is_saved(
    saved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: Any) -> Any:
        error = KeyboardInterrupt()
        if saved:
            error.add_note(saved.removesuffix("; "))
        raise error

    monkeypatch.setattr(command, "_log_to_stderr", lambda *_: None)
    monkeypatch.setattr(command, "_interrupt_on_sigterm", threading.Event)
    assert command.main(interrupted, classify.build_parser(), words=RUN) == 1
    told = capsys.readouterr().err
    assert told == f"error: stopped by Ctrl-C; {saved}start the same command again to continue\n"


@pytest.mark.parametrize("at_terminal", [True, False])
def test_a_command_at_a_terminal_has_a_display(
    at_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for log in map(logging.getLogger, (None, "jobs", *OURS)):
        monkeypatch.setattr(log, "setLevel", lambda level: None)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: at_terminal))
    assert not is_displayed()
    command._log_to_stderr(logging.INFO, str)
    assert is_displayed() == at_terminal
