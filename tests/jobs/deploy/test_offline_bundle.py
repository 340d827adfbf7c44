"""What a machine without a network is brought: nothing it has, all else, and no ballast."""

import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.deploy.offline_bundle import needs
from jobs.deploy.offline_bundle.__main__ import main
from jobs.deploy.offline_bundle.needs import Package, choose, demands, read_present
from jobs.deploy.offline_bundle.packing import unpack, unwanted, write_archive
from pipeline.contract.errors import RunError, UsageError

PACKED = (
    "aiobotocore aioitertools annotated-types botocore fsspec jmespath jsonschema "
    "jsonschema-specifications pillow pydantic pydantic-core ray referencing rpds-py s3fs "
    "simplejpeg typing-inspection"
)
"""A new dependency adds to these, or to present.txt."""


def write_wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    requires: tuple[str, ...] = (),
    files: Mapping[str, str] | None = None,
    programs: tuple[str, ...] = (),
    tag: str = "py3-none-any",
) -> Path:
    """A wheel, of which some files may be programs."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    members = dict(files or {}) | {
        f"{stem}.dist-info/METADATA": "\n".join(["Metadata-Version: 2.1", *about, ""]),
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{stem}.dist-info/RECORD": "",
    }
    path = directory / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            info = zipfile.ZipInfo(member)
            info.external_attr = (0o100755 if member in programs else 0o100644) << 16
            wheel.writestr(info, text)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip finds everything that pyproject.toml asks for, in versions of a few bytes."""
    directory = tmp_path / "index"
    directory.mkdir()
    for requirement in map(Requirement, needs.project().requires):
        floor = next(one.version for one in requirement.specifier if one.operator == ">=")
        name = requirement.name
        if name == "ray":
            write_wheel(
                directory, name, floor, tag="cp312-cp312-manylinux2014_x86_64",
                requires=("jsonschema", 'numpy; extra == "data"', 'grpcio; extra == "serve"'),
                files={"ray/raylet": "program", "ray/rllib/ppo.py": 2_000_000 * "x"},
                programs=("ray/raylet",),
            )  # fmt: skip
        elif name != "torch":
            write_wheel(directory, name, floor, files={f"{name.replace('-', '_')}.py": "x = 1\n"})
    write_wheel(directory, "jsonschema", "4.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    return directory


def pack(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    flags = ["--python-version", "3.12", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", ["offline_bundle", *flags])
    return main()


def test_what_the_machine_lacks_is_in_the_archive(
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "made" / "bundle.tar.xz"
    assert pack(monkeypatch, "--output", output) == 0
    manifest = json.loads(output.with_name("bundle.json").read_text())
    with tarfile.open(output) as archive:
        inside = archive.extractfile("bundle.json")
        assert inside
        assert json.load(inside) == manifest
        assert archive.getmember("ray/raylet").mode == 0o755
        assert archive.getmember("simplejpeg.py").mode == 0o644
        names = set(archive.getnames())
    assert not [name for name in names if name.startswith(("ray/rllib", "numpy"))]
    assert manifest["packages"]["jsonschema"] == "4.0", "what a dependency needs is packed too"
    assert manifest["left_out"] == {"ray/rllib": 2.0}
    known = {canonicalize_name(Requirement(text).name) for text in needs.project().requires}
    assert known <= set(manifest["packages"]) | set(manifest["present"])
    assert {"numpy", "torch"} <= set(manifest["present"])
    assert manifest["replaced"] == {}
    assert "to be there: numpy" in capsys.readouterr().out


def test_an_archive_that_is_too_large_fails(
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    limit = ("--max-megabytes", "0.0001")
    assert pack(monkeypatch, "--output", tmp_path / "bundle.tar.xz", *limit) == 1
    told = capsys.readouterr().err
    assert "more than --max-megabytes 0.0001" in told
    assert "--present" in told


def test_what_cannot_be_resolved_is_said_by_pip(
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (wheel,) = index.glob("ray-*.whl")
    wheel.unlink()
    assert pack(monkeypatch, "--output", tmp_path / "bundle.tar.xz") == 1
    assert "error: pip install failed: ERROR: No matching distribution found for ray" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "bundle.tar.xz").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--python-version", "12"), "is not a version such as 3.12"),
        (("--output", "bundle.zip"), "does not end in .tar.xz"),
        (("--present", "nowhere.txt"), "cannot read --present nowhere.txt"),
        (("--constraint", "nowhere.txt"), "--constraint nowhere.txt is not a file"),
    ],
)
def test_wrong_usage(
    flags: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = pack(monkeypatch, *flags)
    except SystemExit as stopped:  # argparse
        code = int(str(stopped.code))
    assert code == 2
    assert reason in capsys.readouterr().err


def test_every_dependency_is_packed_or_in_the_list() -> None:
    """Of the packages that are installed here, with their own metadata."""
    here: dict[str, Package] = {}
    for one in distributions():
        name = canonicalize_name(one.name)
        if name not in needs.TOO_LARGE:
            here[name] = Package(name, one.version, tuple(one.requires or ()))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    choice = choose(demands(needs.project(), here, python), here, read_present(needs.PRESENT))
    assert sorted(choice.packed) == PACKED.split()
    assert not choice.replaced


ROOT = Package("root", "1", ("torch>=2.8", "pillow>=13", "Some_Tool[fast]; python_version<'4'"))
TOOL = Package(
    "some-tool", "3",
    ("pillow<14", 'old; python_version < "3.12"', 'quick>=2; extra == "fast"',
     'slow; extra == "small"', 'win; sys_platform == "win32"'),
)  # fmt: skip
PACKAGES = {p.name: p for p in (TOOL, Package("pillow", "13.1", ()), Package("quick", "2.5", ()))}


def test_only_what_the_other_python_asks_for_is_needed() -> None:
    needed = demands(ROOT, PACKAGES, "3.12")
    assert set(needed) == {"torch", "pillow", "some-tool", "quick"}
    assert [str(one.specifier) for one in needed["pillow"]] == [">=13", "<14"]


def test_what_pip_of_this_python_does_not_see_is_an_error() -> None:
    with pytest.raises(RunError, match=r"old is needed on Python 3.11.*with Python 3.11"):
        demands(ROOT, PACKAGES, "3.11")


def test_a_named_machine_gets_what_it_lacks(tmp_path: Path) -> None:
    frozen = tmp_path / "there.txt"
    frozen.write_text(
        "# pip freeze\n"
        "-e git+https://example.com/x#egg=x\n"
        "torch==2.11.0+cu130\n"
        "Pillow==12.2\n"
        "quick @ file:///build/quick\n"
    )
    choice = choose(demands(ROOT, PACKAGES, "3.12"), PACKAGES, read_present(frozen))
    assert choice.packed == {"pillow": "13.1", "some-tool": "3"}
    assert choice.present == ("quick", "torch")
    assert choice.replaced == {"pillow": "12.2"}


@pytest.mark.parametrize("text", ["pillow", "torch==2.7.1"])
def test_a_machine_without_a_torch_that_does_is_refused(text: str, tmp_path: Path) -> None:
    frozen = tmp_path / "there.txt"
    frozen.write_text(text)
    with pytest.raises(UsageError, match=r"no bundle holds torch>=2\.8: install it there"):
        choose(demands(ROOT, PACKAGES, "3.12"), PACKAGES, read_present(frozen))


def test_a_line_that_names_no_package_is_refused(tmp_path: Path) -> None:
    frozen = tmp_path / "there.txt"
    frozen.write_text("torch==2.8\nPackage    Version\n")
    with pytest.raises(UsageError, match=r"there.txt line 2: 'Package    Version' is not"):
        read_present(frozen)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("ray/data/read_api.py", None),
        ("ray/jars/ray_dist.jar", "ray/jars"),
        ("ray/rllib/algorithms/ppo.py", "ray/rllib"),
        ("ray/serve/api.py", "ray/serve"),
        ("ray/llm/__init__.py", "ray/llm"),
        ("ray/dashboard/client/build/index.html", "ray/dashboard/client"),
        ("ray/dashboard/dashboard.py", None),
        ("botocore/data/ec2/2016-11-15/service-2.json.gz", "botocore/data (other services)"),
        ("botocore/data/s3/2006-03-01/service-2.json.gz", None),
        ("botocore/data/sts/2011-06-15/service-2.json.gz", None),
        ("botocore/data/endpoints.json", None),
        ("jmespath-1.1.data/scripts/jp.py", "jmespath (scripts)"),
        ("tool-1.data/purelib/tool.py", None),
    ],
)
def test_ballast_is_known_by_its_folder(name: str, folder: str | None) -> None:
    assert unwanted(name) == folder


def test_a_wheel_is_unpacked_as_if_installed(tmp_path: Path) -> None:
    wheel = write_wheel(
        tmp_path, "tool", "1",
        files={"tool/run": "run", "tool-1.data/purelib/more.py": "x", "tool-1.data/scripts/t": "t"},
        programs=("tool/run",),
    )  # fmt: skip
    left_out = unpack([wheel], tmp_path / "site")
    found = {p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site").rglob("*")}
    assert {"tool/run", "more.py", "tool-1.dist-info/METADATA"} <= found
    assert not any("tool-1.data" in name for name in found)
    assert os.access(tmp_path / "site/tool/run", os.X_OK)
    assert not (tmp_path / "site/more.py").stat().st_mode & 0o111
    assert left_out == {"tool (scripts)": 1}


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    packed = []
    for number in range(2):
        (site / "module.py").write_text("x = 1\n")
        os.utime(site / "module.py", (number, number))
        write_archive(site, tmp_path / f"{number}.tar.xz")
        packed.append((tmp_path / f"{number}.tar.xz").read_bytes())
    assert packed[0] == packed[1]
