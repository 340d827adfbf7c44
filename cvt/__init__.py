"""CvT, the convolutional vision Transformer, as a model to use from a notebook or a pipeline."""

import importlib
import importlib.util
import typing

if typing.TYPE_CHECKING:
    from cvt.checkpoints.pretrained import weights_hash
    from cvt.config import CvtConfig
    from cvt.errors import CheckpointError, ConfigError, ImageDecodeError
    from cvt.interface.outputs import CvtModelOutput, CvtOutput
    from cvt.layers.heads import default_scores, labels_above, to_scores
    from cvt.model import CvtForImageClassification, CvtModel
    from cvt.preprocessing.processor import CvtImageProcessor

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CvtConfig",
    "CvtForImageClassification",
    "CvtImageProcessor",
    "CvtModel",
    "CvtModelOutput",
    "CvtOutput",
    "ImageDecodeError",
    "default_scores",
    "labels_above",
    "to_scores",
    "weights_hash",
]

__version__ = "0.1.0"

_HOMES: typing.Final = {
    "CheckpointError": "cvt.errors",
    "ConfigError": "cvt.errors",
    "CvtConfig": "cvt.config",
    "CvtForImageClassification": "cvt.model",
    "CvtImageProcessor": "cvt.preprocessing.processor",
    "CvtModel": "cvt.model",
    "CvtModelOutput": "cvt.interface.outputs",
    "CvtOutput": "cvt.interface.outputs",
    "ImageDecodeError": "cvt.errors",
    "default_scores": "cvt.layers.heads",
    "labels_above": "cvt.layers.heads",
    "to_scores": "cvt.layers.heads",
    "weights_hash": "cvt.checkpoints.pretrained",
}
"""Loaded when they are asked for: who only decodes images needs no network."""


def __getattr__(name: str) -> typing.Any:
    if home := _HOMES.get(name):
        found = getattr(importlib.import_module(home), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        found = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
