"""What libraries raise when an image, a file or a server is not as they expect."""

import struct
import zlib

from urllib3.exceptions import LocationValueError


class PanicError(BaseException):
    """As Rust's libraries raise it: no ``Exception``."""


class SilentError(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


RAISED: tuple[BaseException, ...] = (
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
    ValueError("Exceeds the limit (4300 digits) for integer string conversion"),
    LocationValueError("no host"),
    TypeError("an integer is required"),
    KeyError("missing"),
    IndexError(),
    AssertionError(),
    OverflowError("too large to convert"),
    ZeroDivisionError(),
    struct.error("unpack requires a buffer of 8 bytes"),
    zlib.error("Error -3 while decompressing data"),
    SystemError("returned a result with an exception set"),
    NotImplementedError(),
    StopIteration(),
    UserWarning("turned into an error by -W error"),
    BaseExceptionGroup("several", [ValueError(), PanicError()]),
    PanicError("called `Option::unwrap()` on a `None` value"),
    SilentError(),
)


def name(error: object) -> str:
    """For the ids of tests."""
    return type(error).__name__
