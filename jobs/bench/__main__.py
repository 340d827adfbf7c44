"""Measure what a run costs, on this machine or on the cluster of RAY_ADDRESS.

With an INPUT and no subcommand: what each stage can do, what the whole run reaches, and what limits
it, with your images and your model.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.bench.campaigns.commands import (
    COMPARE,
    GROWTH,
    NIGHTS,
    NODES,
    PUBLISH,
    START,
    TRAINING,
)
from jobs.bench.ceilings.command import RUN
from jobs.bench.components.commands import CLOSE, DECODE, FEED, LISTING, NETWORK, PLAN, READING
from jobs.bench.gpu.command import GPU
from jobs.bench.synthetic.command import IMAGES
from jobs.cli import command, flags
from jobs.cli.parser import meant, new_parser
from pipeline.contract.errors import ExitCode

SUBCOMMANDS = {
    one.name: one
    for one in (
        RUN,
        START,
        GPU,
        COMPARE,
        GROWTH,
        NODES,
        NIGHTS,
        PUBLISH,
        TRAINING,
        NETWORK,
        DECODE,
        FEED,
        PLAN,
        CLOSE,
        LISTING,
        READING,
        IMAGES,
    )
}
INPUT_SIGNS = re.compile(r"^-|[/*?\[.:]")
"""What a word has that is more likely a flag, a path or a URI than a mistyped subcommand."""
RULE = (
    "If the first word is the name of a subcommand, it is taken as one; otherwise run is meant. "
    "Write an INPUT of such a name, say a directory called images, as ./images."
)


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job."""
    usage = "[run] INPUT [INPUT ...] --model SOURCE [options]\n       %(prog)s SUBCOMMAND ..."
    parser = new_parser("bench", usage, __doc__)
    parser.epilog = RULE
    group = parser.add_subparsers(
        title="subcommands, each with its own --help",
        dest="subcommand",
        required=True,
        metavar="SUBCOMMAND",
        prog=parser.prog,
    )
    for one in SUBCOMMANDS.values():
        below = group.add_parser(
            one.name,
            help=one.help,
            description=f"{one.help[0].upper()}{one.help[1:]}.",
            formatter_class=parser.formatter_class,
        )
        one.add_arguments(below)
        flags.add_debug(below)
    return parser


def with_subcommand(words: Sequence[str]) -> list[str]:
    """The words of a command line, made to begin with a subcommand."""
    if words and words[0] in ("-h", "--help", "--version", "--completion"):
        return list(words)
    if not words or words[0] not in SUBCOMMANDS:
        _refuse_typo(words)
        return [RUN.name, *words]
    if Path(words[0]).exists():
        print(f"{words[0]} is the subcommand; the INPUT is ./{words[0]}", file=sys.stderr)
    return list(words)


def _refuse_typo(words: Sequence[str]) -> None:
    """An INPUT comes with a model; without one, a word that is nearly a subcommand was meant so."""
    word = words[0] if words else ""
    known = meant(word, SUBCOMMANDS)
    has_model = any(one.startswith(("--model", "--preset")) for one in words)
    if known and not has_model and not INPUT_SIGNS.search(word) and not Path(word).exists():
        build_parser().error(f"there is no subcommand or INPUT {word}{known}")


def job(a: argparse.Namespace) -> ExitCode:
    """Measure and print."""
    return SUBCOMMANDS[a.subcommand].measure(a)


def main() -> int:
    """Entry point of ``cvt-bench``."""
    return command.main(job, build_parser(), words=with_subcommand(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
