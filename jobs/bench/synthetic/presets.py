"""Names of the models that can be made up; apart, so that a command line need not import torch."""

from typing import Final

PUBLISHED: Final = ("cvt-13", "cvt-21", "cvt-w24")
PRESET_NAMES: Final = (*PUBLISHED, "small")
"""The published shapes, and one so fast that only the costs of everything else show."""
