"""Collect what people said of the images of an output, say what stands, or give the queue of images
to review to another tool.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import CorrectionsSpec, Tool, settings

SETTINGS = settings(CorrectionsSpec, "corrections")


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    usage = "OUT [--add FILE] [--export TOOL --to DIR] [options]"
    parser = new_parser("corrections", usage, __doc__)
    flags.add_reporting(parser)
    flags.add(parser, *SETTINGS)
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Add, export, or say what stands."""
    spec = flags.from_flags(CorrectionsSpec, SETTINGS, arguments)
    if spec.export is not None and spec.to is not None:
        return _export(spec.output, spec.export, spec.to, spec.run)
    # These import what the job needs, but neither a wrong flag nor --help.
    from pipeline.output.corrections.adding import add_files, output_at
    from pipeline.output.corrections.collected import load
    from pipeline.output.corrections.overview import Overview

    store = output_at(spec.output)
    added = add_files(store, spec.add, datetime.now(UTC)) if spec.add else []
    found = Overview.of(load(store))
    if arguments.json:
        files = [one.to_dict() for one in added]
        print(json.dumps(found.to_dict() | {"added": files}, indent=2))
    elif not arguments.quiet:
        print("\n".join([*map(str, added), *found.lines()]))
    return ExitCode.OK


def _export(output: str, tool: Tool, to: str, run: str | None) -> ExitCode:
    from pipeline.output.corrections.adding import output_at
    from pipeline.output.corrections.exports import export
    from pipeline.output.corrections.queue import ReviewedQueue

    queue = ReviewedQueue.read(output_at(output), run)
    number = export(queue, tool, to)
    print(f"exported: {number:,} images in the queue of run {queue.run_id}, to {to}")
    return ExitCode.OK


def main() -> int:
    """Entry point of ``cvt-corrections``."""
    return command.main(job, build_parser(), SETTINGS)


if __name__ == "__main__":
    sys.exit(main())
