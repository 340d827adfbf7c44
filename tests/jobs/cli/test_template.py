"""The configuration file that ``cvt-nightly --init`` writes."""

import re
import sys
import threading
from pathlib import Path

import pytest
import yaml

from jobs import nightly
from jobs.cli import command, template
from pipeline.contract.spec import SETTINGS, InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.runs.python.config import read_config, spec_from_config


def init(monkeypatch: pytest.MonkeyPatch, directory: Path, *words: str) -> int:
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "argv", ["cvt-nightly", *words, "--init"])
    monkeypatch.setattr(command, "_log_to_stderr", lambda *_: None)
    monkeypatch.setattr(command, "_interrupt_on_sigterm", threading.Event)
    return nightly.main()


@pytest.mark.parametrize("words", [[], ["night.yaml"]])
def test_it_is_a_run_with_all_defaults(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert init(monkeypatch, tmp_path, *words) == 0
    [path] = tmp_path.iterdir()
    assert path.name == (words or ["nightly.yaml"])[0]
    assert spec_from_config(read_config(path), path.name) == RunSpec(
        inputs=InputSpec(uris=("s3://BUCKET/photos/",)),
        model=ModelSpec(source="microsoft/cvt-13"),
        output=OutputSpec(uri="s3://BUCKET/results", top_k=5),
    )


def test_every_setting_stands_in_it_with_its_default() -> None:
    text = template.text()
    names = {one.name for one in SETTINGS.values()}
    lines = (re.match(r"(\w+:|  (?:# )?(\w+): (?!\.\.\.))", one) for one in text.splitlines())
    settings = [one for one in lines if one and (one[2] in names or one[2] is None)]
    shown = "\n".join(one.string.replace("  # ", "  ") for one in settings)
    expected = spec_from_config(yaml.safe_load(text), "it")
    assert spec_from_config(yaml.safe_load(shown), "it") == expected
    named = re.findall(r"^  (?:# )?([a-z_]+): ", text, re.MULTILINE)
    assert set(named) >= names


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nightly.yaml").write_text("mine")
    assert init(monkeypatch, tmp_path) == 2
    assert "nightly.yaml is there already; name another" in capsys.readouterr().err
    assert (tmp_path / "nightly.yaml").read_text() == "mine"
    assert init(monkeypatch, tmp_path, "no/such/folder.yaml") == 2
