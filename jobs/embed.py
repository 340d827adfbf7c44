"""Turn every image into an embedding, and label it in the same pass when asked for."""

from __future__ import annotations

import argparse
import sys

from jobs.cli import command, flags
from pipeline.contract.errors import ExitCode


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = flags.run_parser("embed", "Embed every image of a bucket with CvT.")
    parser.add_argument("--with-labels", action="store_true", help="also write the top-k labels")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="labels (default 5)")
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run and report."""
    top_k = arguments.top_k if arguments.with_labels else None
    spec = flags.run_spec(arguments, top_k=top_k, embeddings=True)
    return command.carry_out(spec, arguments)


def main() -> int:
    """Entry point of ``cvt-embed``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
