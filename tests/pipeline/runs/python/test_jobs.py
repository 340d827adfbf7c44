"""The jobs as functions: the examples of docs/python.md, and a Ray that is somebody else's."""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.data import DataContext

from jobs.bench.campaigns.start import watch
from pipeline import RunSpec, classify, embed, nightly, relabel, run
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec
from tests.support.commands import REPOSITORY
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.pages.markdown import blocks

PAGE = "docs/python.md"
EXAMPLES = [block for block in blocks(PAGE) if __file__.endswith(block.about)]
RAY_CORE = " core_worker.cc:"
"""In lines of Ray's own, whose C++ has no ears once somebody else has started it."""
SCRIPT = """
import logging, os, sys
from pipeline import classify
import ray.data
logs = [logging.getLogger("ray"), *logging.getLogger("ray.data").handlers]
before = dict(os.environ), [log.level for log in logs]
result = classify("in", model=sys.argv[1], output="out")
assert not ray.is_initialized()
assert (dict(os.environ), [log.level for log in logs]) == before
assert result.table().num_rows == 4
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 3)
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


def found_by_others() -> dict[str, Any]:
    """What a run could change in a process that has connected to Ray."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data", "pipeline")]
    context = vars(DataContext.get_current())
    return {
        "is there": ray.is_initialized(),
        "job": ray.get_runtime_context().get_job_id(),
        "environment": dict(os.environ),
        "levels": [log.level for log in loggers],
        "handlers": [[handler.level for handler in log.handlers] for log in loggers[:2]],
        "options": {name: repr(value) for name, value in context.items()},
    }


@pytest.mark.usefixtures("ray_local")
class TestWithRay:
    def test_it_is_left_as_it_was_and_nothing_is_printed(
        self, images: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = found_by_others()
        result = classify(images, model=checkpoint, output=tmp_path / "out", max_failure_rate=1)
        assert found_by_others() == before
        printed = capfd.readouterr()
        assert not printed.out
        assert [line for line in printed.err.splitlines() if RAY_CORE not in line] == []
        assert result.table().to_pylist() == sorted(
            published_rows(tmp_path / "out"), key=lambda row: str(row["uri"])
        )
        assert result.complaint is None
        rows = result.to_ray().take_all()
        assert sorted(row["uri"] for row in rows) == result.table()["uri"].to_pylist()
        assert "<figure>" in result._repr_html_()

    def test_jobs_do_what_the_commands_do(
        self, images: Path, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        out = tmp_path / "out"
        first = embed(images / "0000.jpg", [images / "0001.jpg"], model=checkpoint, output=out,
                      with_labels=True, top_k=2)  # fmt: skip
        assert first.table()["topk_ids"].to_pylist()[0] == first.to_pandas()["topk_ids"][0].tolist()
        assert len(first.table()["topk_ids"][0]) == 2
        spec = RunSpec(
            inputs=InputSpec(uris=(str(images),)),
            model=ModelSpec(source=str(checkpoint)),
            output=OutputSpec(uri=str(out), embeddings=True, top_k=2),
        )
        second = run(spec)
        assert second.counts.skipped == 2
        assert second.exit_code == 3
        assert second.complaint in caplog.messages
        assert second.table().num_rows == 4
        file = tmp_path / "night.yaml"
        kept = {name: part for name, part in spec.to_dict().items() if name in spec.__annotations__}
        file.write_text(yaml.safe_dump(_listed(kept)))
        third = nightly(file, max_failure_rate=0.5)
        assert third.counts.skipped == 4
        new = relabel(out, output=tmp_path / "new", label_map={"class 0": "other"})
        assert new.table()["uri"] == third.table()["uri"]

    def test_the_examples_of_the_page(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert len(EXAMPLES) >= 3
        (tmp_path / "jobs").symlink_to(REPOSITORY / "jobs")
        monkeypatch.chdir(tmp_path)
        for block in EXAMPLES:
            exec(compile(block.text, str(block), "exec"), {})


def _listed(value: Any) -> Any:
    """As YAML has it."""
    if isinstance(value, dict):
        return {name: _listed(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.ray
def test_a_ray_of_its_own_leaves_nothing_behind_and_starts_what_it_needs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", 4)
    (home := tmp_path / "home").mkdir()
    for name in filter(lambda name: name.startswith("RAY_AUTH"), list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(checkpoint)]
    seen = watch(command, (tmp_path / "out" / "latest.json").exists, tmp_path / "log")
    assert (tmp_path / "log").read_text() == ""
    assert not list(home.rglob("*auth*"))
    unused = re.compile("Stats|Coordinator|Location|Agent|dashboard|monitor")
    assert not list(filter(unused.search, seen.whole))
    assert any("Predictor" in name for name in seen.whole)
