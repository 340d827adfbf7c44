"""``cvt-corrections``: what it prints, and what it refuses in one line."""

import json
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.storage.store import Store
from tests.support.commands import call_main
from tests.support.outputs.closed_runs import close_run, rows_of

URI = "s3://bucket/image000000.jpg"
RUN_ID = "20261127T000000Z-0a"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    rows = rows_of(np.full((4, 2), 0.5, np.float32), ["cat", "dog"])
    close_run(Store(str(tmp_path / "out")), rows, ["cat", "dog"])
    return tmp_path / "out"


def test_adding_and_saying_what_stands(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corrections.csv").write_text(
        "uri,label,verdict,queue,proposed,score,run_id,who,when\n"
        f"{URI},dog,label,random,cat,0.5,{RUN_ID},Ann,2026-01-01T00:00:00.000Z\n"
    )
    assert call_main("corrections", output) == 0
    assert "no corrections yet" in capsys.readouterr().out
    for first in ("added", "there already"):
        assert call_main("corrections", output, "--add", tmp_path / "corrections.csv") == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{first}: 1 corrections of {tmp_path}/corrections.csv",
            "1 images: 1 labelled (0 as proposed), 0 of no class, 0 not usable, by Ann; "
            "the latest at 2026-01-01T00:00:00.000Z",
            "the random sample says 0.0% ± 39.7% (n = 1; from 0.0% to 79.3% with 95% confidence)",
            f"  run {RUN_ID}: 0.0% ± 39.7% (n = 1; from 0.0% to 79.3% with 95% confidence)",
            "cat is really dog: 1",
        ]
    assert call_main("corrections", output, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["images"] == 1


def test_the_same_in_python(output: Path, tmp_path: Path) -> None:
    files = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for number, file in enumerate(files):
        file.write_text(f"uri,label\n{URI.replace('000000.', f'00000{number}.')},dog\n")
    assert pipeline.corrections(output).images == 0
    assert pipeline.corrections(str(output), add=files).verdicts["label"] == 2
    assert pipeline.corrections(output, add=files[0]).images == 2
    with pytest.raises(pipeline.UsageError, match=r"3\.csv does not exist; check add"):
        pipeline.corrections(output, add=tmp_path / "3.csv")


def test_an_export_says_as_much_as_was_asked_for(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("corrections", output, "--export", "label-studio", "--to")
    assert call_main(*words, tmp_path / "quiet", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert call_main(*words, tmp_path / "json", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"run_id": "00000000", "exported": 4, "to": str(tmp_path / "json")}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--add", "half.csv"], "half.csv: line 2 has 1 cells, the header 2; corrections are CSV"),
        (["--add", ""], "one --add is empty: name a file"),
        (["--to", "x"], "--export and --to belong together: what for, and where"),
        (["--export", "hf"], "--export and --to belong together: what for, and where"),
        (["--export", "hf", "--to", "x", "--add", "y"], "--add excludes --export"),
        (["--run", RUN_ID], "--run needs --export"),
    ],
)
def test_wrong_usage_is_one_line(
    words: list[str],
    complaint: str,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("half.csv").write_text(f"uri,label\n{URI}\n")
    assert call_main("corrections", output, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
