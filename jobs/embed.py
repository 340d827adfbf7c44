"""Turn every image into an embedding, and label it in the same pass when asked for."""

from __future__ import annotations

import argparse
import sys

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode, UsageError


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = new_parser("embed", flags.RUN_USAGE, __doc__)
    groups = flags.add_run(parser, without="output.embeddings")
    groups["output"].add_argument(
        "--with-labels", action="store_true", help="also write the --top-k best labels"
    )
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run and report."""
    if arguments.thresholds is not None and not arguments.with_labels:
        raise UsageError("<output.thresholds> chooses labels; ask for them with --with-labels")
    top_k = arguments.top_k if arguments.with_labels else None
    spec = flags.run_spec(arguments, top_k=top_k, embeddings=True)
    return command.carry_out(spec, arguments)


def main() -> int:
    """Entry point of ``cvt-embed``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
