"""Write the files that start the nightly run elsewhere: cron, Kubernetes, KubeRay, Airflow, Ray."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode, UsageError, one_line

NOT_WRITTEN = frozenset({"offline_bundle", "Dockerfile"})
"""What needs a checkout."""
_CODE = frozenset({"__init__.py", "__main__.py", "__pycache__"})
_HERE = "jobs/deploy/"
_LINK = re.compile(r"\[([^]]+)\]\(\.\./[^)]*\)")
"""To pages that are not written."""


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = new_parser("deploy", "--write DIR", __doc__)
    parser.add_argument(
        "--write", type=Path, required=True, metavar="DIR", help="where to; nothing is overwritten"
    )
    flags.add_debug(parser)
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Write and say what."""
    texts = {
        arguments.write / name: _LINK.sub(r"\1", source.read_text()).replace(_HERE, "")
        for name, source in _sources(files("jobs.deploy"))
    }
    if present := [str(path) for path in texts if path.exists()]:
        raise UsageError(f"{present[0]} is there already; choose another directory, or move it")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path)
    except OSError as error:
        raise UsageError(f"cannot write to {arguments.write}: {one_line(error)}") from error
    return ExitCode.OK


def _sources(folder: Traversable) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for source in sorted(folder.iterdir(), key=lambda one: one.name):
        if source.name in NOT_WRITTEN | _CODE:
            continue
        if source.is_dir():
            yield from ((source.name / name, file) for name, file in _sources(source))
        else:
            yield PurePosixPath(source.name), source


def main() -> int:
    """Entry point of ``cvt-deploy``."""
    return command.main(job, build_parser(), ())


if __name__ == "__main__":
    sys.exit(main())
