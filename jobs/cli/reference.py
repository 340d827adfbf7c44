"""Writes docs/cli.md, the reference of the commands, from their help.

python -m jobs.cli.reference      in a checkout, after changing a flag or a help text
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal

from jobs.cli.parser import Formatter
from jobs.cli.values import shown
from pipeline.contract.spec import SETTINGS, Setting

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cli.md"

_HEAD = """\
# Commands

Every command, as its `--help` shows it, and every field of the nightly's file. This page is written
by `python -m jobs.cli.reference`.
"""
_FILE = """\
## The file of cvt-nightly

YAML, with a section for each part before the dot: `policy.max_failure_rate` is `max_failure_rate`
below `policy`. `inputs.uris`, `model.source` and `output.uri` are required, and `output.top_k`,
`output.embeddings` or both. In the place of a section, a text is what is required of it:
`model: MODELS` is short for `model: {source: MODELS}`; and so is a list, as `inputs`.
[An example](../jobs/deploy/nightly.yaml).

| field | accepts | default | |
|---|---|---|---|
"""
_KINDS: dict[Any, str] = {
    int: "whole number",
    int | Literal["auto"]: "whole number, auto",
    int | str: "whole number, MIN:MAX",
    float: "number",
    float | str: "number, or 1%",
    str: "text",
    bool: "true, false",
    tuple[str, ...]: "list of text",
    float | dict[str, float]: "number, or numbers by label",
}


def page() -> str:
    """The text of docs/cli.md."""
    helps = (section for name, parser in _parsers() for section in _help(name, parser))
    rows = "".join(_row(one) for one in SETTINGS.values())
    return "\n".join([_HEAD, *helps, _FILE + rows])


def _parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands that an installation has; a module offers its parser as ``build_parser``."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name, entry_point in sorted(scripts.items()):
        module = importlib.import_module(entry_point.partition(":")[0])
        if hasattr(module, "build_parser"):
            with _called(name):
                yield name, module.build_parser()


@contextmanager
def _called(name: str) -> Iterator[None]:
    """Parsers call themselves as their program was called."""
    called, sys.argv[0] = sys.argv[0], name
    try:
        yield
    finally:
        sys.argv[0] = called


def _help(name: str, parser: argparse.ArgumentParser, level: str = "##") -> Iterator[str]:
    """The section of a parser, and those of its subcommands."""
    parser.formatter_class = Formatter
    yield f"{level} {name}\n\n```text\n{parser.format_help()}```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, of_command in action.choices.items():
                yield from _help(f"{name} {command}", of_command, f"{level}#")


def _row(one: Setting) -> str:
    """A line of the table of fields."""
    accepts = ", ".join(one.choices) or _KINDS[one.type]
    default = "" if one.default in (MISSING, None) else shown(one.default).lower()
    cells = (f"`{one.place}`", accepts, default, one.about.help)
    return f"| {' | '.join(cells)} |\n".replace("*", r"\*")


if __name__ == "__main__":
    os.environ["NO_COLOR"] = "1"  # Python 3.14 colours help at a terminal
    PAGE.write_text(page())
