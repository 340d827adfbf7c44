"""CvT, the convolutional vision Transformer, as a model to use from a notebook or a pipeline."""

from cvt.checkpoint import weights_hash
from cvt.config import CvtConfig
from cvt.decode import ImageDecodeError
from cvt.errors import CheckpointError, ConfigError
from cvt.heads import default_scores, labels_above, to_scores
from cvt.image import CvtImageProcessor
from cvt.model import CvtForImageClassification, CvtModel
from cvt.outputs import CvtModelOutput, CvtOutput

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
