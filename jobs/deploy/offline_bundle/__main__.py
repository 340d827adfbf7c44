"""Pack what a machine without a network lacks to run the jobs.

The machine is taken to have PyTorch and what commonly stands beside it, or what --present says.
Everything else that pyproject.toml asks for is resolved by pip for the machine's Python, unpacked,
rid of what no job reads (Ray's Java, RLlib, Serve and dashboard pages), and packed into one archive
for PYTHONPATH. bundle.json in it, and a copy beside it, names every version and what was left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.cli import command
from jobs.deploy.offline_bundle import needs
from jobs.deploy.offline_bundle.packing import unpack, unpacked_bytes, write_archive
from jobs.deploy.offline_bundle.wheels import PLATFORMS, Index
from pipeline.contract.errors import ExitCode, RunError, UsageError

MAX_MEGABYTES = 50.0
_SUFFIX = ".tar.xz"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle holds; sizes in megabytes."""

    python_version: str
    platforms: tuple[str, ...]
    packages: dict[str, str]
    """Version by name."""
    present: tuple[str, ...]
    """Needed as well, but not packed: the machine has it."""
    replaced: dict[str, str]
    """Version there of what is packed all the same, as the jobs need another one."""
    left_out: dict[str, float]
    """Unpacked, by the folder that was dropped."""
    unpacked_megabytes: float


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.deploy.offline_bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--python-version", type=_python_version, metavar="X.Y", required=True,
        help="of the machine")  # fmt: skip
    add("--present", type=Path, default=needs.PRESENT, metavar="FILE",
        help="output of `pip freeze` on the machine, or names of packages, one a line: pack what "
        "is not in it (default: present.txt beside this program)")  # fmt: skip
    add("--constraint", type=Path, metavar="FILE", help="versions to keep to, as for pip")
    add("--wheels", type=Path, metavar="DIR", help="keep wheels here, and take those that are here")
    add("--output", type=_archive, default=Path(f"offline-bundle{_SUFFIX}"), metavar="FILE.tar.xz",
        help="(default: %(default)s)")  # fmt: skip
    add("--max-megabytes", type=float, default=MAX_MEGABYTES, metavar="MB",
        help="end with exit code 1 if the archive is larger (default: %(default)g)")  # fmt: skip
    add("--debug", action="store_true", help="tracebacks")
    return parser


def _python_version(text: str) -> str:
    if not re.fullmatch(r"3\.\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version such as 3.12")
    return text


def _archive(text: str) -> Path:
    if not text.endswith(_SUFFIX):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {_SUFFIX}")
    return Path(text)


def job(a: argparse.Namespace) -> ExitCode:
    """Pack, and say what.

    Raises:
        RunError: pip failed, or the archive is too large.
        UsageError: the machine lacks what no bundle holds.
    """
    with tempfile.TemporaryDirectory(prefix="offline-bundle-") as scratch:
        site = Path(scratch, "site")
        manifest = fill(site, a, a.wheels or Path(scratch, "wheels"))
        text = json.dumps(asdict(manifest), indent=2) + "\n"
        (site / "bundle.json").write_text(text)
        write_archive(site, a.output)
    a.output.with_name(a.output.name.removesuffix(_SUFFIX) + ".json").write_text(text)
    megabytes = a.output.stat().st_size / 1e6
    print(describe(manifest, a.output, megabytes))
    if megabytes > a.max_megabytes:
        raise RunError(
            f"{a.output} takes {megabytes:.1f} MB, more than --max-megabytes "
            f"{a.max_megabytes:g}: list what the machine has with --present, or allow more"
        )
    return ExitCode.OK


def fill(site: Path, a: argparse.Namespace, wheels: Path) -> Manifest:
    """Unpack into a folder what the machine lacks."""
    there = needs.read_present(a.present)
    if not (a.constraint is None or a.constraint.is_file()):
        raise UsageError(f"--constraint {a.constraint} is not a file")
    wheels.mkdir(parents=True, exist_ok=True)
    index = Index(python_version=a.python_version, wheels=wheels, constraint=a.constraint)
    project = needs.project()
    packages = index.resolve(needs.to_resolve(project))
    needed = needs.demands(project, packages, a.python_version)
    choice = needs.choose(needed, packages, there)
    left_out = unpack(index.download(choice.packed), site)
    return Manifest(
        python_version=a.python_version,
        platforms=PLATFORMS,
        packages=choice.packed,
        present=choice.present,
        replaced=choice.replaced,
        left_out={name: round(size / 1e6, 1) for name, size in sorted(left_out.items())},
        unpacked_megabytes=round(unpacked_bytes(site) / 1e6, 1),
    )


def describe(manifest: Manifest, output: Path, megabytes: float) -> str:
    """What was packed and what was not, for people."""
    lines = [
        f"{output}: {megabytes:.1f} MB, unpacked {manifest.unpacked_megabytes:g} MB, for Python "
        f"{manifest.python_version}",
        f"packed: {', '.join(f'{name} {version}' for name, version in manifest.packages.items())}",
        f"to be there: {', '.join(manifest.present)}",
    ]
    if manifest.replaced:
        replaced = ", ".join(f"{name} {version}" for name, version in manifest.replaced.items())
        lines.append(f"packed though there, in a version that does not do: {replaced}")
    dropped = ", ".join(f"{name} {size:g} MB" for name, size in manifest.left_out.items())
    return "\n".join([*lines, f"left out: {dropped}"])


def main() -> int:
    """Entry point of ``make offline-bundle``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
