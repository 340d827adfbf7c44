"""JSON files of an output as frozen dataclasses.

A file outlives the code that wrote it: a missing key takes the default of its field, an unknown key
is ignored (or kept in ``others``, by a record that has this field), and a value that contradicts
its field is an error that names the place.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from pipeline.contract.errors import DamagedFileError, one_line

_OTHERS = "others"
_OMITTED = "omitted when None"
_INT64_DIGITS = 19
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
_TYPES: dict[Any, set[type]] = {int: {int}, float: {int, float}, bool: {bool}, str: {str}}
"""The types that parsed JSON may have where a field has the type of the key."""
_SCALARS = {*_TYPES, types.NoneType}


def omitted() -> Any:
    """A field whose key is left out of the file when its value is None."""
    return field(default=None, metadata={_OMITTED: True})


@dataclass(frozen=True)
class Record:
    """Base of the dataclasses that are stored as JSON.

    Fields are numbers, strings, booleans, other records, ``tuple[X, ...]``, ``Mapping[str, X]``,
    ``X | None``, or ``Any`` for what is not interpreted here.
    """

    when_damaged: ClassVar[str] = "restore it, or choose another <output.uri>"
    """What a user can do about a damaged file of this kind."""

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        """Read what ``to_dict`` returns, or returned in an earlier version.

        Args:
            values: parsed JSON.
            where: its place in the file, for messages.

        Raises:
            ValueError: a value contradicts its field, or one without a default is missing.
        """
        found = _object(values, where)
        kind: Any = cls  # mypy takes the hash of a class for that of its instances
        hints = _hints(kind)
        known = {}
        for one in fields(cls):
            place = f"{where}.{one.name}" if where else one.name
            if one.name in found:
                known[one.name] = read_value(hints[one.name], found[one.name], place)
            elif one.default is MISSING and one.default_factory is MISSING:
                raise ValueError(f"{place} is missing")
        if _OTHERS in hints:
            known[_OTHERS] = {name: found[name] for name in found if name not in hints}
        return cls(**known)

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Read a file.

        Raises:
            DamagedFileError: it does not hold such a record; the message contains ``name``.
        """
        with damage_named(name, cls.when_damaged):
            return cls.from_dict(parsed(data))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, in the order of the fields."""
        values: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == _OTHERS:
                values |= _plain(value)
            elif value is not None or _OMITTED not in one.metadata:
                values[one.name] = _plain(value)
        return values


def parsed(data: bytes) -> Any:
    """JSON whose numbers are no larger than a float or an int64.

    Raises:
        ValueError: it is not that; JSON's errors and UTF-8's are ValueErrors, too.
        RecursionError: it is too deep.
    """
    return json.loads(data, parse_int=_whole, parse_float=_finite, parse_constant=_finite)


@contextmanager
def damage_named(name: str, when_damaged: str = Record.when_damaged) -> Iterator[None]:
    """Name the file that turns out to be damaged inside, and what a user can do about it.

    Raises:
        DamagedFileError: a ValueError or a RecursionError was raised inside.
    """
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{name} is damaged: {one_line(error)}; {when_damaged}") from error


def _whole(text: str) -> int:
    if len(text) > _INT64_DIGITS:
        raise ValueError(f"{text[:20]}… is too large a number")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number, or too large a one")
    return number


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of the fields, cached because Python is slow to evaluate them."""
    return get_type_hints(kind)


def read_value(kind: Any, value: Any, where: str) -> Any:
    """A parsed JSON value as the type of a field.

    Raises:
        ValueError: the value contradicts the type.
    """
    inner = get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, types.UnionType):
        return None if value is None else read_value(inner[0], value, where)
    if get_origin(kind) is tuple:
        items = _array(value, where)
        if _are_all(inner[0], items):
            return tuple(items)
        return tuple(read_value(inner[0], item, f"{where}[{n}]") for n, item in enumerate(items))
    if get_origin(kind) is Mapping:
        entries = _object(value, where)
        if _are_all(inner[1], entries.values()):
            return dict(entries)
        return {name: read_value(inner[1], entries[name], f"{where}.{name}") for name in entries}
    if issubclass(kind, Record):
        return kind.from_dict(value, where)
    return _scalar(kind, value, where)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'it'} is {_shown(value)}, not an object")
    return value


def _array(value: Any, where: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {_shown(value)}, not an array")
    return value


def _are_all(kind: Any, values: Collection[Any]) -> bool:
    """Whether all are scalars of a kind: a shortcut, as manifests hold thousands of numbers."""
    return set(map(type, values)) <= _TYPES.get(kind, set())


def _scalar(kind: type, value: Any, where: str) -> Any:
    if type(value) not in _TYPES[kind]:
        raise ValueError(f"{where} is {_shown(value)}, not {_NOUNS[kind]}")
    return value


def _shown(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False), limit=60)


def _plain(value: Any) -> Any:
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
