"""The run that a team schedules: as a YAML file describes it, over only what is new or changed."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.cli import command, flags, template
from jobs.cli.parser import new_parser
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import SETTINGS, RunSpec
from pipeline.runs.python.config import read_config, spec_from_config

SHADOW = SETTINGS["model.shadow"]
OVERRIDING = (*flags.INCREMENTS, SHADOW)
"""The settings that a night's flags can say otherwise than its file."""


def build_parser() -> argparse.ArgumentParser:
    """The command line of this job; its flags override the file."""
    parser = new_parser("nightly", "CONFIG.yaml [options]", __doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="what to run")
    parser.add_argument(
        "--init",
        action=_Init,
        help="write CONFIG.yaml (default: nightly.yaml) with every setting, and stop",
    )
    flags.add_control(parser)
    unset = (replace(setting, default=argparse.SUPPRESS) for setting in OVERRIDING)
    flags.add_grouped(parser, unset)
    return parser


class _Init(argparse._StoreTrueAction):
    """The only case in which no file need be named."""

    def __call__(self, parser: argparse.ArgumentParser, *others: Any) -> None:
        super().__call__(parser, *others)
        for action in parser._actions:
            action.required = False


def spec(arguments: argparse.Namespace) -> RunSpec:
    """What the file says, except where a flag says otherwise."""
    described = spec_from_config(read_config(arguments.config), str(arguments.config))
    policy = flags.from_flags(partial(replace, described.policy), flags.INCREMENTS, arguments)
    model = flags.from_flags(partial(replace, described.model), [SHADOW], arguments)
    return replace(described, policy=policy, model=model)


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run and report."""
    if arguments.init:
        path = arguments.config or Path("nightly.yaml")
        template.write(path)
        print(f"{path} is written; fill in the buckets and the model, then run it")
        return ExitCode.OK
    return command.carry_out(spec(arguments), arguments)


def main() -> int:
    """Entry point of ``cvt-nightly``."""
    return command.main(job, build_parser(), OVERRIDING)


if __name__ == "__main__":
    sys.exit(main())
