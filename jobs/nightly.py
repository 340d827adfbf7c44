"""The run that a team schedules: a YAML file says what, and only what is new or changed is done."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from jobs.cli import command, flags
from pipeline.contract.config import read_config, spec_from_config
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import RunSpec


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job; its flags override the file."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.nightly", description=__doc__, epilog=flags.EXIT_CODES
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    flags.add_increments(parser)
    flags.add_control(parser)
    return parser


def spec(arguments: argparse.Namespace) -> RunSpec:
    """What the file says, but for what a flag says."""
    described = spec_from_config(read_config(arguments.config), str(arguments.config))
    increments = {name: vars(arguments)[name] for name in flags.INCREMENT_FLAGS}
    given = {name: value for name, value in increments.items() if value}
    return replace(described, policy=replace(described.policy, **given))


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run and report."""
    return command.carry_out(spec(arguments), arguments)


def main() -> int:
    """Entry point of ``cvt-nightly``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
