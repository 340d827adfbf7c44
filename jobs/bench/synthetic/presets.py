"""Names of the models that can be made up; apart, since a command line knows them without torch."""

from typing import Final

PUBLISHED: Final = ("cvt-13", "cvt-21", "cvt-w24")
PRESET_NAMES: Final = (*PUBLISHED, "small")
"""The published shapes, and one that is so quick that everything but the model shows."""
