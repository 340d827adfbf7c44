"""Collect what people said of the images of an output, say what stands, or give the queue of images
to review to another tool.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

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
    # These import what the job needs, but neither a wrong flag nor --help.
    if spec.export is not None and spec.to is not None:
        told, lines = _exported(spec.output, spec.export, spec.to, spec.run)
    else:
        told, lines = _overview(spec.output, spec.add)
    if arguments.json:
        print(json.dumps(told, indent=2))
    elif not arguments.quiet:
        print("\n".join(lines))
    return ExitCode.OK


def _overview(output: str, add: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Add files, and say what stands: for scripts, and for people."""
    from pipeline.output.corrections.adding import add_files, output_at
    from pipeline.output.corrections.collected import load
    from pipeline.output.corrections.overview import Overview

    store = output_at(output)
    added = add_files(store, add, datetime.now(UTC)) if add else []
    found = Overview.of(load(store))
    told = found.to_dict() | {"added": [one.to_dict() for one in added]}
    return told, [*map(str, added), *found.lines()]


def _exported(
    output: str, tool: Tool, to: str, run: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Give the queue to another tool, and say how much of it."""
    from pipeline.output.corrections.adding import output_at
    from pipeline.output.corrections.exports import export
    from pipeline.output.corrections.queue import ReviewedQueue

    queue = ReviewedQueue.read(output_at(output), run)
    number = export(queue, tool, to)
    line = f"exported: {number:,} images in the queue of run {queue.run_id}, to {to}"
    return {"run_id": queue.run_id, "exported": number, "to": to}, [line]


def main() -> int:
    """Entry point of ``cvt-corrections``."""
    return command.main(job, build_parser(), SETTINGS)


if __name__ == "__main__":
    sys.exit(main())
