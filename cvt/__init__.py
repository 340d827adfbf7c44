"""CvT, the convolutional vision Transformer, as a model to use from a notebook or a pipeline."""

from cvt.checkpoint import weights_hash
from cvt.config import CvtConfig
from cvt.errors import CheckpointError, ConfigError
from cvt.model import CvtForImageClassification, CvtModel
from cvt.outputs import CvtModelOutput, CvtOutput

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CvtConfig",
    "CvtForImageClassification",
    "CvtModel",
    "CvtModelOutput",
    "CvtOutput",
    "weights_hash",
]
