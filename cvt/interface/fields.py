"""The fields of a checkpoint's JSON files: types, lengths and ranges, all checked here.

A checkpoint is other people's input: whatever stands in a field, the answer is a value that can be
computed with, or a ConfigError of one line that names the field and what it accepts.
"""

import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

from cvt.errors import ConfigError

MAX_JSON_BYTES: Final = 16 * 2**20
"""Of a file; the names of a hundred thousand classes take less than half of it."""
MAX_UNNAMED_LABELS: Final = 100_000
"""Classes without names, which cost a file nothing to ask for."""
MAX_NAME_CHARACTERS: Final = 2000
"""Of a class, whose name stands in the row of every image of it."""


@dataclass(frozen=True)
class Field:
    """What a value must be."""

    rule: str
    """Completes the sentence "the field must ..."."""
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any]
    """From an accepted value to the one that is kept, a plain Python one."""

    def read(self, name: str, value: Any) -> Any:
        """The value as it is kept.

        Raises:
            ConfigError: it is none; the message calls it ``name``.
        """
        if not self.accepts(value):
            raise ConfigError(f"{name} must {self.rule}, not {reprlib.repr(value)}")
        return self.convert(value)


def whole(low: int, high: int) -> Field:
    """A whole number of a range, both ends included."""
    rule = f"be a whole number, {low} or more and at most {high}"
    return Field(rule, lambda value: _is_whole(value) and low <= value <= high, int)


def real(low: float, high: float, *, rule: str = "", open_low: bool = False) -> Field:
    """A finite number of a range, both ends included unless ``open_low`` leaves out the lower."""

    def accepts(value: Any) -> bool:
        return is_number(value) and low <= value <= high and not (open_low and value == low)

    return Field(rule or f"be a number from {low:g} to {high:g}", accepts, _plain)


def _plain(value: Any) -> int | float:
    return value if type(value) in (int, float) else float(value)


def one_of(*choices: str) -> Field:
    """One of these words."""
    known = f"be one of {', '.join(choices)}"
    return Field(known, lambda value: isinstance(value, str) and value in choices, str)


FLAG: Final = Field("be true or false", lambda value: isinstance(value, bool), bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and (isinstance(value, Integral) or math.isfinite(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def per_stage(field: Field, name: str, values: Any, stages: int) -> tuple[Any, ...]:
    """A list or tuple with one value per stage.

    Raises:
        ConfigError: it is none, of another length, or one of its values is refused.
    """
    if not isinstance(values, list | tuple) or len(values) != stages:
        raise ConfigError(
            f"{name} must have one value per stage ({stages}, as depth has), "
            f"not {reprlib.repr(values)}"
        )
    return tuple(field.read(f"stage {s}: {name}", value) for s, value in enumerate(values))


def default_labels(count: int) -> tuple[str, ...]:
    """The placeholder names LABEL_0, LABEL_1, ... that transformers uses."""
    return tuple(f"LABEL_{i}" for i in range(count))


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names by the index of their logit, out of a config.json's ``id2label``.

    That is a map from "0", "1", ... to names, or simply a list of them. Without it ``num_labels``
    counts placeholders; transformers assumes two.

    Raises:
        ConfigError: it names a class twice or not at all, or is no such map.
    """
    names = config.get("id2label")
    if names is None:
        count = config.get("num_labels")
        count = 2 if count is None else count
        return default_labels(whole(0, MAX_UNNAMED_LABELS).read("num_labels", count))
    if isinstance(names, Mapping):
        names = _by_index(names)
    return label_list(names, "id2label")


def label_list(names: Any, where: str) -> tuple[str, ...]:
    """A list of class names; two classes may have the same one.

    Raises:
        ConfigError: it is none; the message calls it ``where``.
    """
    if not isinstance(names, list | tuple):
        raise ConfigError(f"{where} must be a list of class names, not {reprlib.repr(names)}")
    return tuple(_class_name(f"{where}: the name of class {i}", n) for i, n in enumerate(names))


def _class_name(where: str, value: Any) -> str:
    name: str = _NAME.read(where, value)
    if len(name) > MAX_NAME_CHARACTERS:
        raise ConfigError(f"{where} must have at most {MAX_NAME_CHARACTERS} characters")
    return name


def _is_name(value: Any) -> bool:
    """A table of results, which is UTF-8, can hold it."""
    return is_number(value) or (isinstance(value, str) and not _SURROGATE.search(value))


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NAME: Final = Field("be a text", _is_name, str)
_NUMBER: Final = re.compile(r"\s*\d{1,9}\s*")


def _by_index(names: Mapping[Any, Any]) -> list[Any]:
    found = {int(key): name for key, name in names.items() if _NUMBER.fullmatch(str(key))}
    if len(found) != len(names):
        raise ConfigError(
            "id2label must be a list of names, or a map from each class's number to its name, not "
            f"{reprlib.repr(dict(names))}"
        )
    missing = [number for number in range(len(found)) if number not in found]
    if missing:
        raise ConfigError(
            f"id2label must name every class from 0 to N-1 exactly once; it lacks {missing[0]}"
        )
    return [found[number] for number in range(len(found))]


def read_json(path: Path) -> Any:
    """The content of a JSON file, in any of Unicode's encodings, with or without a mark before it.

    Raises:
        ConfigError: it is not JSON, or far larger than any configuration.
    """
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ConfigError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes: no configuration is")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path.name} is not JSON: {reason}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file whose outermost value is an object.

    Raises:
        ConfigError: it is anything else.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} must hold a JSON object")
    return values
