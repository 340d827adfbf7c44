"""Command lines whose flags are settings: name, default, choices and help come from the spec."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, replace
from typing import Any, Literal, TypeVar

from jobs.cli import values
from pipeline.contract.spec import (
    DEFAULT_TOP_K,
    SECTIONS,
    SETTINGS,
    RunSpec,
    Setting,
    settings,
)

INCREMENTS = tuple(one for one in SETTINGS.values() if one.about.group == "increments")
"""Settings that say what counts as done, and how long to go on."""

Spec = TypeVar("Spec")
Groups = dict[str, argparse._ArgumentGroup]

_GROUPS = {"inputs": "input"}
_READERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    int | Literal["auto"]: values.number_or_auto,
    int | str: values.number_or_text,
    float: float,
    float | str: str,
    str: str,
    tuple[str, ...]: values.names,
    float | dict[str, float]: values.thresholds,
    Mapping[str, str]: values.label_map,
}

RUN_USAGE = "INPUT [INPUT ...] --output OUT --model SOURCE [options]"


def add_run(parser: argparse.ArgumentParser, without: str = "") -> Groups:
    """Add the flags of a run, except the setting ``without``; returns the groups they are in."""
    some = {place: one for place, one in SETTINGS.items() if place != without}
    some["output.top_k"] = replace(some["output.top_k"], default=DEFAULT_TOP_K)
    add_control(parser)
    return add_grouped(parser, some.values())


def add_grouped(parser: argparse.ArgumentParser, some: Iterable[Setting]) -> Groups:
    """Add the flags of some settings, in a group for each of their sections."""
    groups: Groups = {}
    for one in some:
        section = one.place.partition(".")[0]
        title = one.about.group or _GROUPS.get(section, section)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add(groups[title], one)
    return groups


def add(to: argparse._ActionsContainer, *some: Setting) -> None:
    """Add the flags of settings to a parser or to one of its groups."""
    for one in some:
        action = to.add_argument(one.flag, **_keywords(one))
        # Afterwards, for Python 3.11 and 3.12 add the default of a --no-... flag themselves.
        action.help = one.about.help.replace("%", "%%") + _default(action.default)


def _keywords(one: Setting) -> dict[str, Any]:
    """What argparse is told about a setting, except its help."""
    told: dict[str, Any] = {"metavar": one.about.metavar}
    if one.is_positional:
        return told | ({"nargs": "+"} if one.type == tuple[str, ...] else {})
    told |= {"required": True} if one.default is MISSING else {"default": one.default}
    if one.choices:
        return told | {"choices": one.choices}
    if one.type is bool:
        del told["metavar"]
        switch = argparse.BooleanOptionalAction if one.about.negatable else "store_true"
        return told | {"action": switch}
    if one.about.repeatable:
        return told | {"action": "append", "default": list(told["default"])}
    return told | {"type": _READERS[one.type]}


def _default(value: Any) -> str:
    """A default as the end of a help text; nothing for what is obviously off or empty."""
    if value is None or value is False or value in ((), [], argparse.SUPPRESS):
        return ""
    return f" (default: {values.shown(value)})"


def add_control(parser: argparse.ArgumentParser) -> None:
    """Flags about the command itself."""
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_reporting(parser)


def add_reporting(parser: argparse.ArgumentParser) -> None:
    """Flags about what is printed."""
    parser.add_argument(
        "--quiet", action="store_true", help="print warnings and errors alone, and the plan"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the closing summary, or the plan, as JSON"
    )
    add_debug(parser)


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The flag that every command has."""
    parser.add_argument("--debug", action="store_true", help="show tracebacks and Ray's own log")


def from_flags(
    spec: Callable[..., Spec], some: Iterable[Setting], arguments: argparse.Namespace, **others: Any
) -> Spec:
    """A spec from the values of flags, where there is a flag, and from other values.

    Raises:
        UsageError: naming the setting that is wrong.
    """
    found = vars(arguments)
    given = {one.name: found[one.dest] for one in some if one.dest in found}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return spec(**given | lists | others)


def run_spec(arguments: argparse.Namespace, **output: Any) -> RunSpec:
    """The run that the flags describe.

    Args:
        output: settings of the output that flags do not determine, or not by themselves.

    Raises:
        UsageError: naming the setting that is wrong.
    """
    parts = {
        name: from_flags(
            spec, settings(spec, name), arguments, **(output if name == "output" else {})
        )
        for name, spec in SECTIONS.items()
    }
    return RunSpec(**parts)
