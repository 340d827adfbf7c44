"""Label every image: top-k classes with scores, and embeddings in the same pass when asked for."""

from __future__ import annotations

import argparse
import sys

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = new_parser("classify", flags.RUN_USAGE, __doc__)
    flags.add_run(parser)
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run and report."""
    return command.carry_out(flags.run_spec(arguments), arguments)


def main() -> int:
    """Entry point of ``cvt-classify``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
