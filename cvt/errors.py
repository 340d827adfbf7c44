"""Errors that users of ``cvt`` may see. Every message is one line: the cause, then the next step.

ValueError
├── ConfigError        a config.json or a CvtConfig that does not describe a CvT
└── CheckpointError    weights that cannot be found, read, trusted or fitted to the model
"""

from typing import ClassVar


class ConfigError(ValueError):
    """A configuration that is not a CvT's; the message names the field and what it accepts."""


class CheckpointError(ValueError):
    """Weights that cannot be found, read, trusted or fitted to the model."""


class ImageDecodeError(ValueError):
    """An image file that could not be decoded; ``code`` names the kind of fault."""

    code: ClassVar[str]


class EmptyFileError(ImageDecodeError):
    """The file has no bytes."""

    code = "empty_file"


class NotAnImageError(ImageDecodeError):
    """Nothing indicates that these bytes are an image."""

    code = "not_an_image"


class UnsupportedFormatError(ImageDecodeError):
    """An image or document in a format, or in a variant of one, that is not decoded."""

    code = "unsupported_format"


class TruncatedImageError(ImageDecodeError):
    """The end of the file is missing."""

    code = "truncated"


class CorruptImageError(ImageDecodeError):
    """The file is complete, but its content contradicts its format."""

    code = "corrupt"


class TooManyPixelsError(ImageDecodeError):
    """The header announces more pixels than allowed."""

    code = "too_many_pixels"
