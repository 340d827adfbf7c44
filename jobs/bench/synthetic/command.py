"""``jobs.bench images``: photographs to measure with."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.bench.subcommand import Subcommand
from pipeline.contract.errors import ExitCode


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("--number", type=int, default=200, metavar="N",
        help="how many (default: %(default)s)")  # fmt: skip


def _measure(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.synthetic.images import write_images

    paths = write_images(a.directory, a.number)
    mean = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"{len(paths)} JPEG files of {mean / 1000:.0f} kB on average in {a.directory}")
    return ExitCode.OK


IMAGES = Subcommand(
    name="images",
    help="write made-up photographs, 500x375, about 110 kB",
    add_arguments=_add_arguments,
    measure=_measure,
)
