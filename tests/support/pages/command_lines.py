"""Does a program accept a command line? Asked of its own parser; nothing is carried out."""

import argparse
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn
from unittest.mock import patch

from jobs.cli.parser import Parser
from tests.support.commands import REPOSITORY

COMMAND = re.compile(
    r"(\w+=\S+ )*(cvt-[a-z]+|python -m [\w.]+|make|pip|ray start|ray job submit) .+"
)
"""A code span that is a command with arguments."""
_PLACEHOLDERS = {"N": "8", "DTYPE": "float32"}
"""Where a number or a choice is expected; other placeholders are as good as any name."""
_PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


class RefusedError(Exception):
    """The program would not start with these arguments; the text says why."""


class _ParsedError(Exception):
    """The arguments are fine: no further."""


def check(line: str) -> None:
    """Raise a RefusedError when a command line names no program, or is not one that it takes."""
    words = [_PLACEHOLDERS.get(word, word) for word in shlex.split(line, comments=True)]
    if words[-2:-1] == [">"]:
        del words[-2:]
    if words[0] == "export":
        del words[0]
    while words and re.fullmatch(r"\w+=.*", words[0]):
        del words[0]
    if not words:
        return
    program, arguments = words[0], words[1:]
    if program.startswith("cvt-"):
        _check_script(program, arguments)
    elif words[:2] == ["python", "-m"]:
        _check_main(words[2], "main", words[3:])
    elif program in _CHECKS:
        _CHECKS[program](arguments)
    else:
        raise RefusedError(f"{program} is no program that the pages may use without a test")


def _check_script(name: str, arguments: Sequence[str]) -> None:
    if name not in _PROJECT["scripts"]:
        raise RefusedError(f"{name} is no console script of pyproject.toml")
    module, _, function = _PROJECT["scripts"][name].partition(":")
    _check_main(module, function, arguments)


def _check_main(module: str, function: str, arguments: Sequence[str]) -> None:
    """Start a program of ours, but only until it has parsed its arguments."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> NoReturn:
        parse(parser, *given, **named)
        raise _ParsedError

    def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
        raise RefusedError(message)

    try:
        package = import_module(module)
        main = package if hasattr(package, function) else import_module(f"{module}.__main__")
    except ModuleNotFoundError as error:
        raise RefusedError(str(error)) from error
    with (
        patch.object(argparse.ArgumentParser, "parse_args", parse_only),
        patch.object(argparse.ArgumentParser, "error", refuse),
        patch.object(Parser, "error", refuse),
        patch.object(sys, "argv", [module, *arguments]),
    ):
        try:
            getattr(main, function)()
        except _ParsedError:
            return
        except SystemExit as stop:  # --help
            if stop.code == 0:
                return
            raise
    raise RefusedError(f"{module} has parsed nothing")


def _check_make(arguments: Sequence[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in arguments:
        variable, is_variable, _ = target.partition("=")
        if is_variable and f"$({variable})" not in makefile:
            raise RefusedError(f"the Makefile reads no variable {variable}")
        if not is_variable and not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            raise RefusedError(f"there is no target {target}")


def _check_pip(arguments: Sequence[str]) -> None:
    if arguments[:3] != ["install", "-c", "constraints.txt"]:
        raise RefusedError("pages install with -c constraints.txt, the tested set")
    for extra in re.findall(r"[\w-]+", " ".join(re.findall(r"\.\[(.*?)\]", " ".join(arguments)))):
        if extra not in _PROJECT["optional-dependencies"]:
            raise RefusedError(f"there is no extra {extra}")


def _check_ray(arguments: Sequence[str]) -> None:
    from click import ClickException
    from ray.dashboard.modules.job.cli import submit
    from ray.scripts.scripts import get_auth_token, start

    alone = {"start": start, "get-auth-token": get_auth_token}
    try:
        if command := alone.get(arguments[0]):
            command.make_context(arguments[0], list(arguments[1:]))
            return
        if arguments[:2] != ["job", "submit"]:
            raise RefusedError(f"ray {arguments[0]} is not known here")
        submit.make_context("submit", list(arguments[2:]))
    except ClickException as error:
        raise RefusedError(error.format_message()) from error
    check(shlex.join(arguments[list(arguments).index("--") + 1 :]))


_CHECKS = {"make": _check_make, "pip": _check_pip, "ray": _check_ray}
