"""A person who asks for help, or mistypes, is answered before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY

HEAVY = {"torch", "ray", "pyarrow", "pandas", "numpy", "PIL", "fsspec", "s3fs", "transformers"}
PROBE = """
import runpy, sys
try:
    exec(sys.argv.pop(1))
finally:
    print("\\n" + " ".join(sys.modules))
"""
RUN = ("in", "--output", "out", "--model", "m")


def loaded(code: str, *arguments: str | Path) -> tuple[int, set[str]]:
    """Exit code of a process that runs ``code``, and the modules that it has imported then."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, code, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, set(done.stdout.splitlines()[-1].split())


def imported(code: str, *arguments: str | Path) -> tuple[int, set[str]]:
    """The same with the packages alone."""
    status, modules = loaded(code, *arguments)
    return status, {name.partition(".")[0] for name in modules}


def called(job: str, *arguments: str | Path) -> tuple[int, set[str]]:
    return imported(f"runpy.run_module('jobs.{job}', run_name='__main__')", *arguments)


JOBS = ("classify", "compact", "corrections", "embed", "nightly", "relabel", "finetune", "bench")


@pytest.mark.parametrize("job", JOBS)
def test_help(job: str) -> None:
    code, packages = called(job, "--help")
    assert code == 0
    assert not packages & HEAVY


@pytest.mark.parametrize(
    ("job", "arguments"),
    [
        ("classify", (*RUN, "--no-such-flag")),
        ("classify", ("in", "--model", "m")),
        ("classify", (*RUN, "--dtype", "int7")),
        ("embed", (*RUN, "--batch-size", "0")),
        ("embed", (*RUN, "--thresholds", "0.5")),
        ("nightly", ("nowhere.yaml",)),
        ("relabel", ("old", "--output", "new")),
        ("finetune", (*RUN, "--train", "everything")),
        ("bench", ("in",)),
        ("bench", ("growth", "--preset", "large")),
    ],
)
def test_wrong_usage(job: str, arguments: tuple[str, ...]) -> None:
    code, packages = called(job, *arguments)
    assert code == 2
    assert not packages & HEAVY


@pytest.mark.parametrize("text", ["a: [", "inputs: {uris: x}", "policy: {max_seconds: -1}"])
def test_a_wrong_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(text)
    code, packages = called("nightly", path)
    assert code == 2
    assert not packages & HEAVY


@pytest.mark.parametrize(
    "module",
    ["pipeline", "pipeline.contract.spec", "pipeline.runs.python.config", "jobs.cli.command"],
)
def test_an_import(module: str) -> None:
    code, packages = imported(f"import {module}")
    assert code == 0
    assert module.partition(".")[0] in packages
    assert not packages & HEAVY


def test_the_functions_for_python() -> None:
    names = "classify, embed, nightly, relabel, run, RunSpec, UsageError"
    code, packages = imported(f"from pipeline import {names}; dir(__import__('pipeline'))")
    assert code == 0
    assert not packages & HEAVY


def test_a_run_is_what_imports_them() -> None:
    """Or the tests above would look for what nothing imports. Ray Data waits until there is
    something to compute."""
    code, modules = loaded("import pipeline.runs.run")
    assert code == 0
    assert modules >= {"torch", "ray", "pyarrow"}
    assert "ray.data" not in modules


def test_who_only_decodes_loads_no_network() -> None:
    """A worker of the decode stage, which also writes."""
    parts = "pipeline.stages.decode.warm_up, pipeline.model.families.cvt"
    code, modules = loaded(f"import {parts}")
    assert code == 0
    assert modules >= {"ray.data", "pipeline.stages.rows.write", "cvt.preprocessing.processor"}
    networks = ("cvt.model", "cvt.inference", "cvt.layers", "cvt.checkpoints.pretrained")
    stages = ("pipeline.stages.infer", "pipeline.stages.graph", "pipeline.model.loaded")
    assert not [name for name in modules if name.startswith(networks + stages)]


@pytest.mark.parametrize(
    "wanted", ["from cvt import CvtConfig, ConfigError", "import cvt.preprocessing.decode"]
)
def test_parts_of_the_model_that_need_no_pytorch(wanted: str) -> None:
    code, packages = imported(wanted)
    assert code == 0
    assert "cvt" in packages
    assert "torch" not in packages


EDITABLE = """
import sys
from importlib.machinery import PathFinder

class Editable:
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [sys.argv[1]]) if path is None else None

sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Editable)
import jobs
"""


@pytest.mark.parametrize("has_module", [True, False])
def test_what_hides_an_editable_installation(tmp_path: Path, has_module: bool) -> None:
    """Which is looked for after the working directory, where even an empty folder is a package."""
    (tmp_path / "pipeline").mkdir()
    if has_module:
        (tmp_path / "pipeline/__init__.py").touch()
    command = [sys.executable, "-c", EDITABLE, str(REPOSITORY)]
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/pipeline hides the package pipeline of {REPOSITORY}")
