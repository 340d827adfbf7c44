"""What refusals of S3 mean to a person, whichever client was refused."""

from __future__ import annotations

import errno
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

SKEWED = "RequestTimeTooSkewed"
_FULL = ("InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "StorageFull")
"""The beginnings of what compatible stores say when they have no room."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def told(error: OSError) -> tuple[int, str]:
    """HTTP's status and S3's code behind what s3fs raises; 0 and nothing if no answer is."""
    response = _response(error)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def _response(error: OSError) -> dict[str, Any]:
    """botocore's; other clients keep something else under this name."""
    found = getattr(error.__cause__, "response", None)
    return found if isinstance(found, dict) else {}


def is_full(error: OSError) -> bool:
    """Whether a disk, a quota or a store has no room left."""
    status, code = told(error)
    return error.errno in _NO_ROOM or status == 507 or code.startswith(_FULL)


def is_of_the_moment(error: BaseException) -> bool:
    """Whether nothing is wrong with what was asked for: the storage is full, or in trouble."""
    return isinstance(error, OSError) and (is_full(error) or told(error)[0] >= 500)


def wrong_clock(date: str | None) -> str:
    """That this machine's clock is to be set, and how wrong it is by what the server's says.

    Args:
        date: the header of that name.
    """
    host = socket.gethostname()
    try:
        seconds = (datetime.now(UTC) - parsedate_to_datetime(date or "")).total_seconds()
    except (TypeError, ValueError):  # none, or one without a time zone
        return f"set the clock of {host}"
    direction = "ahead of" if seconds > 0 else "behind"
    minutes = abs(seconds) / 60
    return f"the clock of {host} is {minutes:.0f} minutes {direction} the server's; set it"
