"""What is printed when a run has closed, or is planned, for people and for scripts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.cli.summary import show_plan, summarize
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import PolicySpec
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan
from pipeline.plan.forecast import Forecast
from pipeline.runs.result import RunResult
from pipeline.sources.exclusion import Exclusion
from pipeline.storage.store import Store
from tests.support.inputs.world import World, listing_of
from tests.support.outputs.closed_runs import close_run, rows_of


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    store = Store(str(tmp_path / "out"))
    manifest = close_run(store, rows_of(np.array([[0.75, 0.25]], np.float32), ["a", "b"]), ["a"])
    return RunResult(store, manifest, PolicySpec())


def test_a_script_reads_json(result: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert summarize(result, as_json=True, quiet=True) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == result.counts.to_dict()
    assert told["run_id"] == result.run_id
    assert Path(told["table"]).is_dir()
    assert told["exit_code"] == 0


def test_files_of_other_kinds(
    result: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"mp4": 2, "without extension": 1}
    told = "3 files of other kinds not taken: 2 mp4, 1 without extension"
    met = replace(result, manifest=replace(result.manifest, plan={"not_taken": others}))
    summarize(met)
    summarize(met, as_json=True)
    text, _, in_json = capsys.readouterr().out.partition("\n{")
    assert told in text.splitlines()
    assert json.loads("{" + in_json)["not_taken"] == others

    exclusion = Exclusion()
    plan = Plan(World().ledger(), OpenRun(Store(str(tmp_path))), exclusion=exclusion)
    exclusion.others.numbers.update(others)
    plan.survey([])
    show_plan(Forecast(plan, None), as_json=False)
    show_plan(Forecast(plan, None), as_json=True)
    text, _, in_json = capsys.readouterr().out.partition("\n{")
    assert told in (" ".join(line.split()) for line in text.splitlines())
    assert json.loads("{" + in_json)["not_taken"] == others
    assert str(plan).endswith(told)


def test_quiet(result: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    summarize(result, quiet=True)
    assert capsys.readouterr() == ("", "")
    summarize(result)
    assert "images listed" in capsys.readouterr().out


def test_a_plan_lists_names_and_no_zeros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(World().ledger(), OpenRun(Store(str(tmp_path))))
    plan.survey(listing_of({f"{number}.jpg": "A" for number in range(12)}))
    show_plan(Forecast(plan, 2.0), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["12", "new"]
    assert "vanished" not in "".join(lines)
    assert [line.strip() for line in lines[2:12]] == plan.first_names
    show_plan(Forecast(plan, 2.0), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["new"], told["vanished"], told["seconds"]) == (12, 0, 6)
    assert len(told["first"]) == 10
