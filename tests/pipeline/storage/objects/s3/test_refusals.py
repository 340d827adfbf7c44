"""What refusals of S3 mean to a person."""

import errno
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from pipeline.storage.objects.connection import refusal
from pipeline.storage.objects.s3.refusals import is_full, is_of_the_moment, wrong_clock


def raised(status: int, code: str, message: str = "what it says", **headers: str) -> OSError:
    """What s3fs makes of an answer."""
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    found = translate_boto_error(ClientError(answer, "PutObject"))
    assert isinstance(found, OSError)
    return found


@pytest.mark.parametrize(
    "error",
    [
        raised(507, "InsufficientStorage"),
        raised(507, "XMinioStorageFull"),
        raised(507, "507"),
        raised(403, "QuotaExceeded"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        refusal(507, "Azure answers 507"),
    ],
    ids=str,
)
def test_no_room(error: OSError) -> None:
    assert is_full(error)
    assert is_of_the_moment(error)


@pytest.mark.parametrize(
    ("error", "of_the_moment"),
    [
        (raised(500, "InternalError"), True),
        (raised(503, "SlowDown"), True),
        (raised(403, "AccessDenied"), False),
        (raised(404, "NoSuchBucket"), False),
        (FileNotFoundError("x"), False),
        (OSError(errno.EIO, "x"), False),
    ],
    ids=str,
)
def test_whatever_else(error: OSError, of_the_moment: bool) -> None:
    assert is_of_the_moment(error) == of_the_moment
    assert not is_full(error)


def test_an_error_whose_cause_has_something_else_under_the_name() -> None:
    class OtherError(Exception):
        response = object()

    error = OSError("x")
    error.__cause__ = OtherError()
    assert not is_full(error)


@pytest.mark.parametrize(
    ("ahead", "said"), [(20, "20 minutes behind"), (-90, "90 minutes ahead of")]
)
def test_a_wrong_clock(ahead: int, said: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=ahead), usegmt=True)
    expected = f"the clock of {socket.gethostname()} is {said} the server's; set it"
    assert wrong_clock(date) == expected


@pytest.mark.parametrize("odd", [None, "", "yesterday", "Thu, 26 Nov 2026 22:00:00 -0000", "\0"])
def test_a_server_that_does_not_tell_the_time(odd: str | None) -> None:
    assert wrong_clock(odd) == f"set the clock of {socket.gethostname()}"
