"""Relabel an output without a network: other names, thresholds, or another linear head."""

from __future__ import annotations

import argparse
import sys

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import RelabelSpec, settings

SETTINGS = settings(RelabelSpec, "relabel")


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = new_parser("relabel", "OUT --output NEW_OUT [options]", __doc__)
    flags.add_reporting(parser)
    flags.add(parser, *SETTINGS)
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Relabel and report."""
    spec = flags.from_flags(RelabelSpec, SETTINGS, arguments)
    # These import torch, which a run needs, but neither a wrong flag nor --help.
    from jobs.cli.summary import summarize
    from pipeline.runs.relabel.job import relabel

    return summarize(relabel(spec), as_json=arguments.json, quiet=arguments.quiet)


def main() -> int:
    """Entry point of ``cvt-relabel``."""
    return command.main(job, build_parser(), SETTINGS)


if __name__ == "__main__":
    sys.exit(main())
