"""Names of the models that can be made up; apart, since a command line knows them without torch."""

from typing import Final

PRESET_NAMES: Final = ("cvt-13", "cvt-21", "cvt-w24", "small")
"""The published shapes, and one that is so quick that everything but the model shows."""
