"""What a shell is told to complete the flags of a command, the words they accept, and files."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words=
    case $prev in
{cases}
        *) [[ $cur == -* ]] && words={flags} || {{ ((COMP_CWORD == 1)) && words={subcommands}; }} ;;
    esac
    [[ $words ]] && COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F {function} {script}"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def text(script: str, parser: argparse.ArgumentParser, shell: str) -> str:
    """A program for one of the SHELLS, to be evaluated when it starts."""
    if shell == "fish":
        return "\n".join(_fish(script, parser))
    return (_ZSH if shell == "zsh" else "") + _bash(script, parser)


def _bash(script: str, parser: argparse.ArgumentParser) -> str:
    flags = list(_flags(parser))
    cases = [
        f"        {'|'.join(flag.option_strings)}) words={_quoted(flag.choices)} ;;"
        for flag in flags
        if flag.choices
    ]
    names = sorted({name for flag in flags for name in flag.option_strings})
    return _BASH.format(
        function=f"_{script.replace('-', '_')}",
        cases="\n".join(cases),
        flags=_quoted(names),
        subcommands=_quoted(_subcommands(parser)),
        script=script,
    )


def _fish(script: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for name in _subcommands(parser):
        yield f"complete -c {script} -n __fish_use_subcommand -a {name}"
    for flag in _flags(parser):
        for name in (name for name in flag.option_strings if name.startswith("--")):
            accepts = "" if flag.nargs == 0 else " -r"
            words = f" -f -a {_quoted(flag.choices)}" if flag.choices else ""
            about = shlex.quote(" ".join((flag.help or "").split()))
            yield f"complete -c {script} -l {name[2:]}{accepts}{words} -d {about}"


def _quoted(words: Iterable[object]) -> str:
    return shlex.quote(" ".join(map(str, words)))


def _flags(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and its subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _flags(below)
        elif action.option_strings:
            yield action


def _subcommands(parser: argparse.ArgumentParser) -> list[str]:
    below = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return [name for action in below for name in action.choices]
