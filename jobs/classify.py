"""Label every image: top-k classes with scores, and embeddings in the same pass when asked for."""

from __future__ import annotations

import argparse
import sys

from jobs.cli import command, flags
from pipeline.contract.errors import ExitCode


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = flags.run_parser("classify", "Label every image of a bucket with CvT.")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="labels (default 5)")
    parser.add_argument("--with-embeddings", action="store_true", help="also write embeddings")
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run and report."""
    spec = flags.run_spec(arguments, top_k=arguments.top_k, embeddings=arguments.with_embeddings)
    return command.carry_out(spec, arguments)


def main() -> int:
    """Entry point of ``cvt-classify``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
