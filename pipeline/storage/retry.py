"""Which storage failures pass, and how long to wait for that: one policy for every protocol.

    busy or away     the server asks to slow down, or nobody answers: all objects suffer alike and
                     none is at fault, so the wait is long, ``AWAY_SECONDS``
    passing          resets, stalls, truncated bodies, 5xx: ``TRIES`` tries
    denied           busy stores say so, too (ray-project/ray 47230): ``DENIED_TRIES`` tries, but
                     only one if nothing was readable lately
    lasting          not found, too large, refused: one try
    bad credentials  expired or revoked: ``DENIED_TRIES`` tries, then the whole run stops, since
                     every other object would fail alike and none of them is at fault

Each protocol decides what an answer means: a web server that is busy, or away, is one among
thousands, and a store that denies access may only be busy. Pauses double from try to try and are
randomised, so that a thousand workers that were turned away together do not come back together.
"""

from __future__ import annotations

import errno
import random
import re
import time

import botocore.exceptions
import urllib3.exceptions

from pipeline.contract.errors import CredentialsError, FetchError, one_line

BACKOFF_SECONDS = 0.25
"""Before the second try; doubled for each that follows, and spread by up to a half."""
LONGEST_PAUSE_SECONDS = 8.0
LONGEST_RETRY_AFTER_SECONDS = 60.0
"""A server that asks for a longer pause than this gets this one."""
TRIES = 5
DENIED_TRIES = 3
AWAY_SECONDS = 120.0
HOPELESS_DENIALS = 20
"""After so many denied objects in a row, none readable between them, each is tried once."""

_AWAY = re.compile(r"(?i)could ?n[o']t (connect|resolve)")
_TIMEOUTS = (
    TimeoutError,
    botocore.exceptions.ReadTimeoutError,
    urllib3.exceptions.TimeoutError,
)
_NO_CREDENTIALS = (
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.InvalidConfigError,
    botocore.exceptions.MetadataRetrievalError,
    botocore.exceptions.NoAuthTokenError,
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.RefreshWithMFAUnsupportedError,
    botocore.exceptions.SSOError,
    botocore.exceptions.TokenRetrievalError,
)
"""There are none any more, or they could not be refreshed."""
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class PassingError(FetchError):
    """A failure that another try may overcome."""

    def __init__(
        self, code: str, message: str, *, is_busy: bool = False, retry_after: float = 0
    ) -> None:
        super().__init__(code, message)
        self.is_busy = is_busy
        """Whether the whole server is busy or away."""
        self.retry_after = retry_after
        """Seconds that the server asks us to wait."""


class StoreError(OSError):
    """A failure of an object store that knows what it means to the image that was wanted."""

    def __init__(self, meaning: FetchError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


class BadCredentialsError(PassingError):
    """A store refuses the credentials themselves, not only what is asked for.

    Whoever speaks with a store raises it (or ``classify`` makes it of what a library raises) once
    it is sure: after asking for something that depends on nothing but the credentials.
    """

    def __init__(self, message: str, remedy: str = "renew them") -> None:
        super().__init__("access_denied", message)
        self.remedy = remedy
        """What a person has to do."""


class Patience:
    """How often and for how long one read is retried."""

    _denied_in_a_row = 0
    """Objects of this process that stayed denied; a successful read resets the count."""

    def __init__(self, away_seconds: float | None = None) -> None:
        """A server that is busy or away is waited for ``away_seconds``, or ``AWAY_SECONDS``."""
        self.tries = 0
        """How many have failed."""
        self._away_seconds = AWAY_SECONDS if away_seconds is None else away_seconds
        self._denials = 0
        self._busy_since: float | None = None

    def pause(self, error: FetchError) -> None:
        """Wait before another try.

        Raises:
            FetchError: the given one, if no try is left or none makes sense.
            CredentialsError: likewise, where the credentials are at fault.
        """
        if not isinstance(error, PassingError):
            raise error
        self.tries += 1
        self._denials += error.code == "access_denied"
        if not self._is_worth_another_try(error):
            if isinstance(error, BadCredentialsError):
                raise CredentialsError(f"{error}; {error.remedy}") from error
            Patience._denied_in_a_row += error.code == "access_denied"
            raise error
        longest = min(BACKOFF_SECONDS * 2 ** (self.tries - 1), LONGEST_PAUSE_SECONDS)
        wished = min(error.retry_after, LONGEST_RETRY_AFTER_SECONDS)
        time.sleep(max(longest * random.uniform(0.5, 1), wished))

    @staticmethod
    def succeed() -> None:
        """Something was read."""
        Patience._denied_in_a_row = 0

    def _is_worth_another_try(self, error: PassingError) -> bool:
        if error.is_busy:
            self._busy_since = self._busy_since or time.monotonic()
            return time.monotonic() - self._busy_since < self._away_seconds
        if error.code == "access_denied":
            is_hopeless = self._denied_in_a_row >= HOPELESS_DENIALS
            return self._denials < DENIED_TRIES and not is_hopeless
        return self.tries < TRIES


def classify(error: Exception) -> FetchError:
    """What a filesystem raised, as one of our errors; many kinds differ only in their text."""
    text = one_line(error)
    if isinstance(error, FetchError):
        return error
    if isinstance(error, StoreError):
        return error.meaning
    if isinstance(error, _NO_CREDENTIALS):
        return BadCredentialsError(f"there are no usable credentials: {text}")
    if isinstance(error, OSError) and error.errno in _NO_SUCH_NAME:
        return FetchError("not_found", f"no file can have this name: {text}")
    if isinstance(error, _GONE):
        return FetchError("not_found", f"no longer there: {text}")
    if isinstance(error, PermissionError):
        return PassingError("access_denied", text)
    if isinstance(error, ConnectionRefusedError) or _AWAY.search(text):
        return PassingError("storage_error", text, is_busy=True)
    if isinstance(error, botocore.exceptions.ConnectTimeoutError):
        return PassingError("timeout", text, is_busy=True)
    if isinstance(error, _TIMEOUTS) or "timed out" in text:
        return PassingError("timeout", text)
    is_busy = "SlowDown" in text or "reduce your request rate" in text
    return PassingError("storage_error", text, is_busy=is_busy)
