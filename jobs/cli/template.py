"""Writes a configuration file to start from: every setting, what it does, and its default."""

from __future__ import annotations

import re
import textwrap
from dataclasses import MISSING
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import SETTINGS, Setting

FILLED: dict[str, Any] = {
    "inputs.uris": ["s3://BUCKET/photos/"],
    "model.source": "microsoft/cvt-13",
    "output.uri": "s3://BUCKET/results",
    "output.top_k": 5,
}
"""What a run needs; the other settings stand there as comments."""

_HEAD = """\
# What a night does. cvt-nightly FILE --dry-run says what that would be, cvt-nightly FILE does it.
# Settings in comments show their default, or ... where there is none.
"""


def text() -> str:
    """The file."""
    sections = groupby(SETTINGS.values(), key=lambda one: one.place.partition(".")[0])
    parts = (f"{name}:\n" + "\n".join(map(_entry, some)) for name, some in sections)
    return _HEAD + "\n" + "\n".join(parts) + "\n"


def write(path: Path) -> None:
    """Write the file where there is none.

    Raises:
        UsageError: there is one, or it cannot be written.
    """
    try:
        with path.open("x") as file:
            file.write(text())
    except FileExistsError as error:
        raise UsageError(f"{path} is there already; name another file, or move it") from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {one_line(error)}") from error


def _entry(one: Setting) -> str:
    lines = textwrap.wrap(f"{one.about.help}{_accepted(one)}", 94)
    if one.place in FILLED:
        return "\n".join([*(f"  # {line}" for line in lines), _line(one, FILLED[one.place])])
    default = "..." if one.default in (MISSING, None) else one.default
    commented = re.sub(r"^  ", "  # ", _line(one, default))
    return "\n".join([*(f"  # {line}" for line in lines), commented])


def _accepted(one: Setting) -> str:
    return f" ({', '.join(map(str, one.choices))})" if one.choices else ""


def _line(one: Setting, value: Any) -> str:
    if value == "...":
        return f"  {one.name}: ..."
    listed = list(value) if isinstance(value, tuple) else value
    in_a_list = yaml.safe_dump([listed], default_flow_style=True, width=1000).strip()
    return f"  {one.name}: {in_a_list[1:-1]}"
