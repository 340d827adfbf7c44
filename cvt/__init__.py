"""CvT, the convolutional vision Transformer, as a model to use from a notebook or a pipeline."""

from cvt.checkpoint import weights_hash
from cvt.config import CvtConfig
from cvt.decode import ImageDecodeError, decode_image
from cvt.errors import CheckpointError, ConfigError
from cvt.image import CvtImageProcessor, size_mismatch
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
    "decode_image",
    "size_mismatch",
    "weights_hash",
]
