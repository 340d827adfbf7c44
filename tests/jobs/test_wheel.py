"""The product as it is installed: a wheel, no checkout, and a directory that is somebody else's."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows

PARTS = ("cvt", "pipeline", "jobs", "pyproject.toml", "README.md", "LICENSE")
"""Of the repository, what a wheel is built from."""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and the packages of the tests'."""
    root = tmp_path_factory.mktemp("installed")
    (source := root / "source").mkdir()
    for part in map(REPOSITORY.joinpath, PARTS):
        copy = shutil.copytree if part.is_dir() else shutil.copy
        copy(part, source / part.name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", root, source)
    shutil.rmtree(source)
    venv.create(root / "venv")
    [packages] = (root / "venv" / "lib").glob("python*/site-packages")
    (packages / "tests.pth").write_text(str(Path(pytest.__file__).parents[1]))
    [wheel] = root.glob("*.whl")
    pip("--python", root / "venv", "install", "--no-deps", "--no-index", wheel)
    return root / "venv" / "bin"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data repository, whose folders are called as our packages are."""
    for name in ("jobs", "pipeline", "cvt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    return tmp_path


def call(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=480, check=False
    )


@pytest.mark.ray
def test_workers_import_what_the_driver_does(
    directory: Path, scripts: Path, checkpoint: Path
) -> None:
    write_images(directory / "photos", 5)
    options = ("--output", "out", "--model", checkpoint)
    done = call(scripts / "cvt-classify", "photos", *options, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in published_rows(directory / "out")] == ["ok"] * 5


@pytest.mark.parametrize("hidden", ["pipeline", "cvt"])
@pytest.mark.parametrize("as_module", [True, False])
def test_a_driver_that_finds_another_package_says_which(
    directory: Path, scripts: Path, hidden: str, as_module: bool
) -> None:
    for name in {"jobs", "pipeline", "cvt"} - {hidden}:
        shutil.rmtree(directory / name)
    program = [scripts / "python", "-m", "jobs.classify"] if as_module else [scripts / "cvt-embed"]
    path = {} if as_module else {"PYTHONPATH": str(directory)}
    done = call(*program, "photos", "--output", "out", "--model", "m", cwd=directory, **path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {directory / hidden} hides the package {hidden} of ")


def test_a_folder_without_modules_hides_nothing(directory: Path, scripts: Path) -> None:
    for file in directory.glob("*/__init__.py"):
        file.unlink()
    done = call(scripts / "python", "-m", "jobs.classify", "--help", cwd=directory)
    assert done.returncode == 0, done.stderr


def test_it_is_typed_and_knows_its_version(directory: Path, scripts: Path) -> None:
    for folder in directory.iterdir():
        shutil.rmtree(folder)
    code = """
import importlib.metadata as m, importlib.resources as r, pipeline, cvt
assert m.version("cvt-batch") == pipeline.__version__ == cvt.__version__
for package in ("cvt", "pipeline", "jobs"):
    assert r.files(package).joinpath("py.typed").is_file(), package
assert r.files("pipeline.monitoring.review").joinpath("assets", "page.html").is_file()
print(*m.metadata("cvt-batch").get_all("Project-URL"), sep="\\n")
"""
    done = call(scripts / "python", "-c", code, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert "https://" in done.stdout


def test_a_night_is_set_up_without_a_checkout(directory: Path, scripts: Path) -> None:
    assert call(scripts / "cvt-deploy", "--write", "ops", cwd=directory).returncode == 0
    assert (directory / "ops/kubernetes/cronjob.yaml").is_file()
    assert call(scripts / "cvt-nightly", "--init", cwd=directory).returncode == 0
    assert "BUCKET" in (directory / "nightly.yaml").read_text()
