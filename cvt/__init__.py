"""CvT, the convolutional vision Transformer, as a model to use from a notebook or a pipeline."""

from cvt.config import CvtConfig
from cvt.errors import CheckpointError, ConfigError
from cvt.model import CvtForImageClassification, CvtModel

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CvtConfig",
    "CvtForImageClassification",
    "CvtModel",
]
