"""The parser of every command: it names what was probably meant, and itself."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jobs.cli import completion
from pipeline import __version__

EXIT_CODES = (
    "Exit codes: 0 done, 1 could not finish (start again to continue), 2 wrong usage, "
    "3 too many images failed, or the run drifted. Credentials come from the environment alone."
)
WIDTH = 88
"""Of a help text; fixed, whatever the terminal's, so that docs/cli.md is always the same."""
Formatter = partial(argparse.HelpFormatter, width=WIDTH, max_help_position=26)
"""Lays out a help text."""

_FLAG = re.compile(r"--?[A-Za-z]\S*")


class Parser(argparse.ArgumentParser):
    """Complains in one line. A flag that there is not is named before one that is missing."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        if not any(isinstance(one, argparse._SubParsersAction) for one in self._actions):
            self._refuse_unknown(words)
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        hint = "" if message.endswith("?") else f"; see {self.prog} --help"
        print(f"error: {message}{hint}", file=sys.stderr)
        sys.exit(2)

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        flags = [name for name in self._option_string_actions if name.startswith("--")]
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            is_known = name in self._option_string_actions or (
                name.startswith("--") and any(flag.startswith(name) for flag in flags)
            )
            if _FLAG.fullmatch(word) and not is_known:
                known = meant("--" + name.lstrip("-"), flags)
                self.error(f"there is no flag {name}{known}")


def meant(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is unknown: the nearest that there is."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def new_parser(name: str, usage: str, description: str | None) -> Parser:
    """A parser for ``cvt-NAME`` and ``python -m jobs.NAME``, with the flags about the program."""
    script = f"cvt-{name}"
    parser = Parser(
        prog=script if Path(sys.argv[0]).stem == script else f"python -m jobs.{name}",
        usage=f"%(prog)s {usage}",
        description=description,
        epilog=EXIT_CODES,
        formatter_class=Formatter,
    )
    version = f"{script} {__version__}"
    parser.add_argument("--version", action="version", version=version, help="show the version")
    parser.add_argument(
        "--completion",
        action=_PrintCompletion,
        script=script,
        choices=completion.SHELLS,
        help="print what completes this command in a shell, for its eval",
    )
    return parser


class _PrintCompletion(argparse.Action):
    def __init__(self, *, script: str, **keywords: Any) -> None:
        super().__init__(default=argparse.SUPPRESS, **keywords)
        self.script = script

    def __call__(self, parser: argparse.ArgumentParser, *others: Any) -> NoReturn:
        _, shell, _ = others
        print(completion.text(self.script, parser, shell))
        parser.exit()
