"""From the text after a flag to the value of a setting, and back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Literal

from pipeline.contract.errors import one_line


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def number_or_auto(text: str) -> int | Literal["auto"]:
    """A whole number, or the word auto."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from error


def number_or_text(text: str) -> int | str:
    """A whole number, or what else it is, for the setting to judge."""
    try:
        return int(text)
    except ValueError:
        return text


def thresholds(text: str) -> float | dict[str, float]:
    """A number, or a JSON file that maps labels to numbers."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        values = json.loads(Path(text).read_text())
        return {str(label): float(value) for label, value in values.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} is neither a number nor a JSON file of numbers by label: {one_line(error)}"
        ) from error


def label_map(text: str) -> dict[str, str]:
    """A JSON file that maps old names to new names."""
    try:
        new_names = json.loads(Path(text).read_text())
        if not all(isinstance(new, str) for new in new_names.values()):
            raise ValueError("a new name is not a string")
    except (OSError, ValueError, AttributeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} is not a JSON file that maps old names to new names: {one_line(error)}"
        ) from error
    return dict(new_names)


def shown(value: Any) -> str:
    """A value as one would type it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)
