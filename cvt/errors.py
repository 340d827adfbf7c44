"""Errors that a user of `cvt` can meet. Every message is one line: the cause, then the next step.

ValueError
├── ConfigError        a config.json or a CvtConfig that describes no CvT
└── CheckpointError    weights that cannot be found, read, trusted or fitted to the model
"""


class ConfigError(ValueError):
    """A configuration that describes no CvT; the message names the field and what it accepts."""


class CheckpointError(ValueError):
    """Weights that cannot be found, read, trusted or fitted to the model."""
