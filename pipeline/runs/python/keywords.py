"""Settings as keywords of a function, called as flags and as fields of a nightly file are."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import SECTIONS, RunSpec, Setting

Place = str | os.PathLike[str]
"""A path or a URI."""
Function = TypeVar("Function", bound=Callable[..., Any])


class Keywords:
    """Some settings by the names that they have as keywords."""

    def __init__(self, some: Iterable[Setting]) -> None:
        self.settings = {one.place: one for one in some}
        by_field = {one.name: one for one in self.settings.values() if one.default is not MISSING}
        self._named = by_field | {one.dest: one for one in self.settings.values()}

    def spell(self, place: str) -> str:
        """What messages call the setting of a place."""
        if place not in self.settings:
            return place
        one = self.settings[place]
        return one.spoken if one.is_positional else one.dest

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of keywords, by the place of their setting.

        Raises:
            UsageError: there is no such setting, or it does not take the value.
        """
        names: dict[str, str] = {}
        for name in given:
            first = names.setdefault(self._setting(name).place, name)
            if first != name:
                raise UsageError(f"{first} and {name} are the same setting; give one of them")
        return {place: _value(self.settings[place], given[name]) for place, name in names.items()}

    def _setting(self, name: str) -> Setting:
        if name in self._named:
            return self._named[name]
        known = [one.dest for one in self.settings.values()]
        raise UsageError(f"there is no setting {name}; {meant(name, self._named, known)}")

    def listed(self, function: Function) -> Function:
        """Name them in the signature and the docstring of a function, in place of its last
        parameter, which takes them: notebooks complete and explain what they find there."""
        own = list(inspect.signature(function).parameters.values())[:-1]
        shown = [one for one in self.settings.values() if one.dest not in {p.name for p in own}]
        lines = (f"        {one.dest}: {' '.join(one.about.help.split())}" for one in shown)
        keywords = [
            inspect.Parameter(
                one.dest,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if one.default is MISSING else one.default,
            )
            for one in shown
        ]
        vars(function)["__signature__"] = inspect.Signature([*own, *keywords])
        function.__doc__ = "\n".join(
            [(function.__doc__ or "").rstrip(), "", "    Settings:", *lines]
        )
        return function


def meant(word: str, known: Iterable[str], shown: Iterable[str]) -> str:
    """The end of a message about a word that is unknown: the nearest that there is, or all that are
    shown."""
    close = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(shown)}"


def _value(one: Setting, value: Any) -> Any:
    value = _plain(one, value)
    if one.choices:  # which its spec checks
        return value
    try:
        return TypeAdapter(one.type | None if one.is_optional else one.type).validate_python(value)
    except ValidationError as error:
        texts = [problem["msg"].removeprefix("Input should be ") for problem in error.errors()]
        shown = one_line(repr(value), 80)
        raise UsageError(f"<{one.place}> is {shown}; it must be {' or '.join(texts)}") from None


def _plain(one: Setting, value: Any) -> Any:
    """As a configuration file would have it: paths are text, and one name is a list of one."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if one.type != tuple[str, ...]:
        return value
    if isinstance(value, str):
        is_one = one.is_positional or one.about.repeatable
        return (value,) if is_one else tuple(map(str.strip, value.split(",")))
    return tuple(_texts(value)) if isinstance(value, Iterable) else value


def _texts(values: Iterable[Any]) -> Iterator[Any]:
    return (os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)


def flat(inputs: Iterable[Place | Iterable[Place]]) -> list[Any]:
    """Every INPUT of some, which may come in lists."""
    found: list[Any] = []
    for one in inputs:
        if isinstance(one, (str, os.PathLike)) or not isinstance(one, Iterable):
            found.append(one)
        else:
            found += one
    return found


def run_spec(found: Mapping[str, Any]) -> RunSpec:
    """A run by the values of settings, which are named by their places.

    Raises:
        UsageError: naming the setting that is wrong.
    """
    return RunSpec(**{name: kind(**fields(found, name)) for name, kind in SECTIONS.items()})


def fields(found: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Those values that belong to a section, by their fields."""
    split = {place: place.partition(".") for place in found}
    return {split[place][2]: value for place, value in found.items() if split[place][0] == section}
