"""The GPU benchmark on a CPU, at tiny sizes: every part runs, and a wrong number fails it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.bench.__main__ import main
from jobs.bench.gpu import report
from pipeline.contract.errors import ExitCode
from pipeline.stages.infer.nvjpeg import why_not


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", "gpu", *arguments])
    return main()


def test_parity_and_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "gpu.json"
    only = ["--only", "parity", "--only", "network"]
    assert run(monkeypatch, *only, "--json", str(figures)) == ExitCode.OK
    found = json.loads(figures.read_text())
    assert {check["pooling"] for check in found["parity"]["rows"]} == {"cls_norm", "cls", "mean"}
    assert len({check["size"] for check in found["parity"]["rows"]}) == 2
    assert all(check["passed"] for check in found["parity"]["rows"])
    forms = {row["form"] for row in found["network"]["rows"]}
    assert {"transformers", "model.py", "optimize()"} <= forms
    assert all(row["images_per_second"] > 0 for row in found["network"]["rows"])
    printed = capsys.readouterr().out
    assert "ours at its best batch is" in printed
    assert printed.count("passed") == len(found["parity"]["rows"])


@pytest.mark.slow
@pytest.mark.ray
def test_the_whole_and_its_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "gpu.json"
    only = ["--only", "whole", "--only", "faults"]
    assert run(monkeypatch, *only, "--json", str(figures)) == ExitCode.OK
    found = json.loads(figures.read_text())
    whole = found["whole"]["rows"][0]
    assert whole["end_to_end"]["images_per_second"] > 0
    assert [row["fault"] for row in found["faults"]["rows"]] == [
        "an actor is killed",
        "others hold the memory",
    ]
    assert all(row["ok"] == row["images"] > 0 for row in found["faults"]["rows"])
    printed = capsys.readouterr().out
    assert "of the smaller ceiling" in printed
    if (reason := why_not()) is None:
        assert whole["decode_gpu"]["images_per_second"] > 0
    else:
        assert f"--decode gpu is not measured: {reason}" in printed


@pytest.mark.parametrize(
    ("part", "failed"),
    [
        ({"rows": [{"passed": True}, {}], "error": None}, False),
        ({"rows": [{"passed": True}, {"passed": False}], "error": None}, True),
        ({"rows": [], "error": "the process ended with -9"}, True),
    ],
)
def test_what_fails_the_command(part: dict[str, Any], failed: bool) -> None:
    assert report.has_failed({"whole": {"rows": [], "error": None}, "parity": part}) == failed


@pytest.mark.slow
@pytest.mark.ray
def test_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "gpu.json"
    assert run(monkeypatch, "--only", "peers", "--json", str(figures)) == ExitCode.OK
    standings = json.loads(figures.read_text())["peers"]["rows"][0]["standings"]
    assert {"torch DataLoader", "transformers pipeline"} <= {one["name"] for one in standings}
    assert all(one["agreement"] == 1 for one in standings)
    assert "ours / it" in capsys.readouterr().out
