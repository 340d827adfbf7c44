"""Settings: fields of a spec that know their help text, their flag and their limits.

Command lines, their reference and the checks of values read them here, so that a setting is
described in one place: where its field stands.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.contract.errors import UsageError
from pipeline.contract.urls import has_password

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What a field of a spec says about itself."""

    help: str
    """For users of the command line and of Python alike."""
    metavar: str | None = None
    """The placeholder of the value in a help text."""
    flag: str | None = None
    """If not the field's name, as in "--model"; without dashes, a positional argument."""
    group: str | None = None
    """Its heading in a help text, if not that of its section."""
    at_least: float | None = None
    """The smallest number that is accepted."""
    negatable: bool = False
    """Whether there is also a --no-FLAG."""
    repeatable: bool = False
    """Whether each value has a flag of its own; otherwise, commas separate them."""
    place: str | None = None
    """Section and field of the setting that this one repeats, in the spec of another job."""

    @property
    def metadata(self) -> Mapping[str, About]:
        """For ``dataclasses.field``."""
        return MappingProxyType({"about": self})


def setting(
    default: T,
    help: str,
    *,
    metavar: str | None = None,
    flag: str | None = None,
    group: str | None = None,
    at_least: float | None = None,
    negatable: bool = False,
    repeatable: bool = False,
) -> T:
    """A field with a default, described as in ``About``."""
    described = About(help, metavar, flag, group, at_least, negatable, repeatable)
    return field(default=default, metadata=described.metadata)


@dataclass(frozen=True)
class Setting:
    """One field of a spec, as a command line or a check sees it."""

    name: str
    """Of the field."""
    place: str
    """Section and field, "model.dtype": its name in messages and in configuration files."""
    type: Any
    """Of its values, without None."""
    is_optional: bool
    """Whether None is accepted."""
    default: Any
    """``dataclasses.MISSING`` if a value must be given."""
    about: About

    @property
    def flag(self) -> str:
        """Its name at a command line; without dashes, that of a positional argument."""
        return self.about.flag or f"--{self.name.replace('_', '-')}"

    @property
    def is_positional(self) -> bool:
        """Whether a command line takes it without a flag."""
        return not self.flag.startswith("-")

    @property
    def dest(self) -> str:
        """The attribute under which argparse keeps its value."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def spoken(self) -> str:
        """What messages and help texts call it at a command line."""
        return (self.about.metavar or self.flag) if self.is_positional else self.flag

    @property
    def choices(self) -> tuple[Any, ...]:
        """All values that are accepted; empty if they are not enumerated."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def check(self, value: Any) -> None:
        """Refuse what is not accepted.

        Raises:
            UsageError: the message names the setting, its value and what is accepted.
        """
        if value is None and self.is_optional:
            return
        if self.choices and value not in self.choices:
            accepted = ", ".join(map(str, self.choices))
            raise UsageError(f"<{self.place}> is {value!r}; accepted: {accepted}")
        least = self.about.at_least
        if least is None or value == "auto":
            return
        if not value >= least:  # refuses NaN, too
            raise UsageError(f"<{self.place}> is {value}; it must be {least:g} or more")


@cache
def settings(spec: type[DataclassInstance], section: str) -> tuple[Setting, ...]:
    """The fields of a spec that are settings, in their order.

    Args:
        section: what the spec is called where it is a part of a run: "model".
    """
    types = get_type_hints(spec)
    found = []
    for f in dataclasses.fields(spec):
        if (described := f.metadata.get("about")) is not None:
            kind, is_optional = _without_none(types[f.name])
            place = described.place or f"{section}.{f.name}"
            found.append(Setting(f.name, place, kind, is_optional, f.default, described))
    return tuple(found)


def _without_none(kind: Any) -> tuple[Any, bool]:
    if get_origin(kind) not in (Union, UnionType) or NoneType not in get_args(kind):
        return kind, False
    rest = tuple(member for member in get_args(kind) if member is not NoneType)
    return reduce(or_, rest), True


def check_settings(spec: DataclassInstance, section: str) -> None:
    """Refuse values that the settings do not accept; for the end of a spec's construction.

    Raises:
        UsageError: see ``Setting.check``.
    """
    for one in settings(type(spec), section):
        one.check(getattr(spec, one.name))


def check_output(uri: str) -> None:
    """Refuse an output that is not named, or has a password in its name.

    Raises:
        UsageError: it is so.
    """
    if not uri:
        raise UsageError("<output.uri> is empty: name a directory or an fsspec URI")
    check_no_password("output.uri", uri)


def check_no_password(place: str, uri: str) -> None:
    """Refuse a URI with a password in it, which would stand in every row's ``uri``, or be left out
    of it, so that the row could not be found again.

    Args:
        place: of the setting.

    Raises:
        UsageError: it has a password in front of its host or bucket.
    """
    if has_password(uri):
        raise UsageError(
            f"<{place}> has a password in it; give it in the environment, a profile or fsspec's "
            "configuration"
        )
