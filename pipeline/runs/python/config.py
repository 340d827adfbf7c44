"""A run described in a YAML file: the tree of ``spec``, section by section, checked strictly."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import RunSpec


class _Loader(yaml.SafeLoader):
    """To which 1:8 and 22:30 are text, as to YAML 1.2; to YAML 1.1 they are numbers of base 60."""

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if ":" in node.value:
            return node.value
        is_whole = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


_FIRST = {"model": "source", "output": "uri"}


def read_config(path: Path) -> dict[str, Any]:
    """The file as a mapping.

    Raises:
        UsageError: it cannot be read, is not valid YAML, or is not a mapping.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold the sections {', '.join(_names(RunSpec))}")
    return content


def spec_from_config(content: Mapping[str, Any], origin: str) -> RunSpec:
    """The spec that a configuration describes; ``origin`` names it in messages.

    Raises:
        UsageError: a field is unknown or wrong; the message names it and what is accepted.
    """
    content = {name: _section(name, value) for name, value in content.items()}
    _check_names(content, RunSpec, origin, "")
    try:
        return TypeAdapter(RunSpec).validate_python(content)
    except ValidationError as error:
        raise UsageError(f"{origin}: {_problem(error.errors())}") from error
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from error


def _section(name: str, value: Any) -> Any:
    """A section as a mapping. One whose settings are all comments is None to YAML; a text is the
    setting that it cannot do without, as is a list of INPUTs."""
    if value is None:
        return {}
    if name == "inputs" and isinstance(value, str | list):
        return {"uris": [value] if isinstance(value, str) else value}
    return {_FIRST[name]: value} if name in _FIRST and isinstance(value, str) else value


def _problem(errors: Sequence[ErrorDetails]) -> str:
    """The first field that is wrong, and why; for a field with several types, why it is none."""
    first, where = errors[0], _field(errors[0])
    others = [error["msg"] for error in errors[1:] if _field(error) == where]
    accepted = [first["msg"], *(text.removeprefix("Input should be ") for text in others)]
    got = "" if first["type"] == "missing" else f", not {first['input']!r}"
    return f"{where}: {' or '.join(accepted)}{got}"


def _field(error: ErrorDetails) -> str:
    """Section and field, without the rest of the place: an item, or one of several types."""
    return ".".join(str(step) for step in error["loc"][:2])


def _names(section: type) -> list[str]:
    return [field.name for field in dataclasses.fields(section)]


def _check_names(content: Mapping[Any, Any], section: type, origin: str, prefix: str) -> None:
    """Refuse unknown fields, and suggest the one that was probably meant."""
    names = _names(section)
    for name, value in content.items():
        if name not in names:
            close = difflib.get_close_matches(str(name), names, 1)
            meant = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(names)}"
            raise UsageError(f"{origin}: there is no field {prefix}{name}; {meant}")
        kind = get_type_hints(section)[name]
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            _check_names(value, kind, origin, f"{prefix}{name}.")  # type: ignore[arg-type]
