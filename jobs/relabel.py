"""Relabel an output without a network: other names, thresholds, or another linear head."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from jobs.cli import command, flags
from pipeline.contract.errors import ExitCode, one_line
from pipeline.contract.spec import Scores, Sink
from pipeline.runs.relabel.job import RelabelSpec, relabel


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.relabel", description=__doc__, epilog=flags.EXIT_CODES
    )
    add = parser.add_argument
    add("source", metavar="OUT", help="the output of an earlier job, which stays as it is")
    add("--output", required=True, metavar="NEW_OUT", help="directory or URI of the new table")
    add("--label-map", type=_label_map, metavar="FILE.json",
        help="old name to new name; scores of classes that become one add up (softmax) or the "
        "largest counts (sigmoid, logits)")  # fmt: skip
    add("--thresholds", type=flags.thresholds, metavar="T|FILE.json",
        help="score from which on a class stands in `labels`; `label` is the best")  # fmt: skip
    add("--head", metavar="FILE",
        help=".npz with weight, bias and labels, or a checkpoint with a classifier; needs stored "
        "embeddings")  # fmt: skip
    add("--scores", choices=get_args(Scores), help="what the head's logits become")
    add("--top-k", type=int, metavar="K", help="labels (default: as many as are stored)")
    add("--full", action="store_true", help="do everything again, not only what is new")
    add("--review", type=int, default=RelabelSpec.review, metavar="K",
        help="uncertain images to list, and images unlike earlier ones (%(default)s)")  # fmt: skip
    add("--sink", choices=get_args(Sink), default=RelabelSpec.sink,
        help="lance: also keep the newest row of every image in NEW_OUT/images.lance")  # fmt: skip
    add("--debug", action="store_true", help="tracebacks")
    return parser


def _label_map(text: str) -> dict[str, str]:
    try:
        names = json.loads(Path(text).read_text())
        if not all(isinstance(new, str) for new in names.values()):
            raise ValueError("a new name is no string")
    except (OSError, ValueError, AttributeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no JSON file of old name to new name: {one_line(error)}"
        ) from error
    return dict(names)


def job(arguments: argparse.Namespace) -> ExitCode:
    """Relabel and report."""
    fields = {name: value for name, value in vars(arguments).items() if name != "debug"}
    return command.summarize(relabel(RelabelSpec(**fields)))


def main() -> int:
    """Entry point of ``cvt-relabel``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
