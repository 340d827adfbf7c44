"""CvT, the convolutional vision Transformer, as a model to use from a notebook or a pipeline."""

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
