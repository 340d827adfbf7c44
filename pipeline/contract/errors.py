"""Everything that can go wrong, drawn as one tree.

    JobError                      ends the command; its exit code is part of the contract
    ├── UsageError        (2)     wrong usage or configuration, found before any image is read
    ├── RunError          (1)     the run could not finish; the same command continues it
    │   ├── CredentialsError      a store refuses the credentials themselves
    │   ├── LostNodesError        nodes are gone
    │   └── CutOffError           a node does not reach the storage
    └── DamagedFileError  (1)     a file of the output is not what a run wrote
    ItemError                     ends one image; becomes a row with ``status = failed``
    ├── DecodeError               empty_file, not_an_image, unsupported_format, truncated, corrupt,
    │                             too_many_pixels, timeout
    ├── FetchError                not_found, access_denied, url_refused, timeout, storage_error,
    │                             too_large
    ├── ShardError                shard_truncated, shard_corrupt, shard_empty
    └── InferenceError            non_finite_output

The leaves are the values of the ``error_code`` column.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar

from pipeline.contract.urls import public

_SECTIONS = "inputs|model|output|compute|policy|relabel|finetune|compact|corrections"
_PLACE = re.compile(rf"<((?:{_SECTIONS})\.[a-z_]+)>")


class ExitCode(IntEnum):
    """Exit codes of every job."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    TOO_MANY_FAILURES = 3


def spelled(text: str, spell: Callable[[str], str]) -> str:
    """``text`` with every setting in it, such as ``<model.dtype>``, spelled by ``spell``."""
    return _PLACE.sub(lambda place: spell(place[1]), text)


class JobError(Exception):
    """Ends the command with one line that names the cause and the next step.

    The line names a setting by its place in the spec, in angle brackets: ``<model.dtype>``.
    How it is spelled depends on where it was given, which the caller knows.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.RUN_FAILED

    def __str__(self) -> str:
        return self.spelled(lambda place: place)

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The line with ``spell(place)`` for every setting; ``str()`` shows the bare place."""
        return spelled(super().__str__(), spell)


class UsageError(JobError):
    """Wrong usage or configuration, found before any image is read."""

    exit_code = ExitCode.USAGE


class RunError(JobError):
    """The run could not finish; starting the same command again continues it."""


class CredentialsError(RunError):
    """A store refuses the credentials themselves, whatever is read with them: they have expired or
    were revoked. No image is to blame, so none gets a row for it."""


class LostNodesError(RunError):
    """Nodes are gone on which actors computed, and the others have no room for them."""


class CutOffError(RunError):
    """A host does not reach the storage, which is no fault of what it was to read or write there;
    others may do it."""

    def __init__(self, message: str, node_id: str = "", uri: str = "") -> None:
        super().__init__(message)
        self.node_id = node_id
        """What Ray calls the host; empty outside of Ray."""
        self.uri = uri
        """In the store that does not answer it."""


class DamagedFileError(JobError):
    """A file of the output is not what a run wrote; the message names it."""


NOBODYS_FAULT = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""How a process is told to stop; everything else that reading or decoding an image raises, of
whatever class, is that image's failure."""


class ItemError(Exception):
    """Ends one image. ``code`` becomes its ``error_code``, the text its ``error_message``."""

    codes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, code: str, message: str) -> None:
        if code not in self.codes:
            raise ValueError(f"{type(self).__name__} has no error code {code!r}")
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[ItemError], tuple[str, str]]:
        """It also travels between processes."""
        return type(self), (self.code, str(self))


class DecodeError(ItemError):
    """The bytes of an image could not be decoded."""

    codes = frozenset(
        {
            "empty_file",
            "not_an_image",
            "unsupported_format",
            "truncated",
            "corrupt",
            "too_many_pixels",
            "timeout",
        }
    )


class FetchError(ItemError):
    """The bytes of an image could not be read from where it was listed."""

    codes = frozenset(
        {"not_found", "access_denied", "url_refused", "timeout", "storage_error", "too_large"}
    )


class ShardError(ItemError):
    """A shard could not be read to its end; its readable members have rows of their own."""

    codes = frozenset({"shard_truncated", "shard_corrupt", "shard_empty"})


class InferenceError(ItemError):
    """The model gave no usable numbers for an image that was decoded."""

    codes = frozenset({"non_finite_output"})


ERROR_CODES = DecodeError.codes | FetchError.codes | ShardError.codes | InferenceError.codes


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """The text of an error as a single line of at most ``limit`` characters, in which URLs are
    without credentials."""
    words = public(" ".join(_text(error).split())) or type(error).__name__
    text = "".join(character if character.isprintable() else "?" for character in words)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(error: BaseException | str) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # an error whose text cannot be had is still an error
        return ""
