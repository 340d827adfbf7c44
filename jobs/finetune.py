"""Train a model on your own labels. Of an output with embeddings no image is read, and a classifier
takes seconds; images are read once, and also train the network itself, with --train last or all.
"""

from __future__ import annotations

import argparse
import json
import sys

from jobs.cli import command, flags
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import FinetuneSpec, settings

SETTINGS = settings(FinetuneSpec, "finetune")


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    usage = "INPUT [INPUT ...] --output MODELS --model SOURCE [--labels FILE] [options]"
    parser = new_parser("finetune", usage, __doc__)
    flags.add_control(parser)
    flags.add(parser, *SETTINGS)
    return parser


def job(arguments: argparse.Namespace) -> ExitCode:
    """Train and report, or, with ``--dry-run``, say what would be learned from."""
    spec = flags.from_flags(FinetuneSpec, SETTINGS, arguments)
    # These import torch, which training needs, but neither a wrong flag nor --help.
    from pipeline.runs.finetune.job import finetune, survey

    if arguments.dry_run:
        found = survey(spec)
        print(json.dumps(found.to_dict(), indent=2) if arguments.json else "\n".join(found.lines()))
        return ExitCode.OK
    result = finetune(spec)
    if arguments.json:
        print(json.dumps(result.to_dict(), indent=2))
    elif not arguments.quiet:
        print("\n".join(result.lines()))
    if complaint := result.complaint:
        print(f"error: {complaint}", file=sys.stderr)
    return result.exit_code


def main() -> int:
    """Entry point of ``cvt-finetune``."""
    return command.main(job, build_parser(), SETTINGS)


if __name__ == "__main__":
    sys.exit(main())
