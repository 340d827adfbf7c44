"""Combine the runs of an output into one, with the newest row of every image."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import CompactSpec, settings

if TYPE_CHECKING:
    from pipeline.runs.compact.job import Compaction

SETTINGS = settings(CompactSpec, "compact")


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = new_parser("compact", "OUT [options]", __doc__)
    flags.add_reporting(parser)
    flags.add(parser, *SETTINGS)
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Combine, remove and report."""
    spec = flags.from_flags(CompactSpec, SETTINGS, arguments)
    # This imports what a compaction needs, but neither a wrong flag nor --help.
    from pipeline.runs.compact.job import compact

    done = compact(spec)
    if arguments.json:
        print(json.dumps(done.to_dict(), indent=2))
    elif not arguments.quiet:
        _print(done)
    return ExitCode.OK


def _print(done: Compaction) -> None:
    run = done.manifest
    if run is None:
        print("nothing to combine: all rows are in one run, and each image has one")
    else:
        rows = sum(file.rows for file in run.files)
        print(
            f"{len(run.source_runs or ())} runs are one: {rows} rows in {len(run.files)} "
            f"{'file' if len(run.files) == 1 else 'files'}"
        )
        print(f"files: {done.current_uri}")
    if done.removed:
        print(f"removed: {len(done.removed)} runs that were replaced before")


def main() -> int:
    """Entry point of ``cvt-compact``."""
    return command.main(job, build_parser(), SETTINGS)


if __name__ == "__main__":
    sys.exit(main())
