"""Requests to an object store over plain HTTP, and what goes wrong with them.

Every failure is an OSError of the kind that a disk would raise, and knows what it means to an
image.
"""

from __future__ import annotations

import errno
import io
import os
import random
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.exceptions import TimeoutError as HttpTimeoutError
from urllib3.util import Timeout

from pipeline.contract.errors import FetchError, one_line
from pipeline.storage.read_ahead import THREADS
from pipeline.storage.retry import PassingError, StoreError

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
"""After so long without a single byte, a request is given up."""
TRY_SECONDS = 15.0
"""How long a request of ours is tried again; objects of the input have ``Patience`` instead."""
LEAST_TRIES = 3
"""However long each of them takes."""
LONGEST_PAUSE_SECONDS = 4.0
_FIRST_PAUSE_SECONDS = 0.25
_BLOCK_BYTES = 2**20
"""Sent at a time: the time limit holds for each, not for the whole of a large part."""

T = TypeVar("T")


class AbsentError(StoreError, FileNotFoundError):
    """There is no such object, or no such container."""


class DeniedError(StoreError, PermissionError):
    """The store refuses the credentials, or does not allow them this."""


class RefusedCredentialsError(DeniedError):
    """The store seems to refuse the credentials themselves, not only what is asked for."""


class ExistsError(StoreError, FileExistsError):
    """There is such an object already, and it was to be new."""


def send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    read_seconds: float = READ_SECONDS,
) -> urllib3.BaseHTTPResponse:
    """The answer to one request, whatever its status; its body is not read yet.

    Raises:
        StoreError: there is none.
    """
    server, target = _split(url)
    try:
        return _pool(server, read_seconds).urlopen(
            method,
            target,
            body=None if body is None else io.BytesIO(body),
            headers=headers,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
    except HTTPError as error:
        raise silence(error) from error


def _split(url: str) -> tuple[str, str]:
    """The server and the target; not parsed, for that would resolve ``..`` in a key."""
    scheme, _, rest = url.partition("://")
    server, _, target = rest.partition("/")
    return f"{scheme}://{server}", f"/{target}"


@lru_cache(maxsize=64)
def _pool(server: str, read_seconds: float) -> urllib3.HTTPConnectionPool:
    """Connections to a server, through the proxy of the environment if it is reached by https."""
    timeout = Timeout(connect=CONNECT_SECONDS, read=read_seconds)
    options: dict[str, Any] = {"maxsize": THREADS, "timeout": timeout, "blocksize": _BLOCK_BYTES}
    parts = urlsplit(server)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if parts.scheme == "https":
        options["ca_certs"] = os.environ.get("REQUESTS_CA_BUNDLE")
        if proxy:
            return urllib3.ProxyManager(proxy, **options).connection_from_url(server)
    return urllib3.PoolManager(**options).connection_from_url(server)


def content(response: urllib3.BaseHTTPResponse) -> bytes:
    """The whole body; the connection is free again.

    Raises:
        StoreError: it broke off.
    """
    try:
        return response.data
    except HTTPError as error:
        raise silence(error) from error


def silence(error: HTTPError) -> StoreError:
    """What it means that a server did not answer, or not to the end."""
    text = one_line(error)
    if isinstance(error, NewConnectionError | NameResolutionError):
        return StoreError(PassingError("storage_error", text, is_busy=True))
    if isinstance(error, HttpTimeoutError):
        is_away = isinstance(error, ConnectTimeoutError)
        return StoreError(PassingError("timeout", text, is_busy=is_away))
    return StoreError(PassingError("storage_error", text))


def refusal(
    status: int,
    text: str,
    *,
    is_busy: bool = False,
    retry_after: str = "",
) -> StoreError:
    """What a status from 300 on means, said by ``text``.

    Args:
        status: of HTTP.
        text: for a person.
        is_busy: the store says that it is, whatever the status.
        retry_after: the header of that name.
    """
    if status == 404:
        return AbsentError(FetchError("not_found", text))
    if is_busy or status in (429, 503):
        wished = float(retry_after) if retry_after.isdigit() else 0.0
        return StoreError(PassingError("storage_error", text, is_busy=True, retry_after=wished))
    if status in (401, 403):
        return DeniedError(PassingError("access_denied", text))
    if status in (408, 504):
        return StoreError(PassingError("timeout", text))
    if status == 507:
        full = StoreError(FetchError("storage_error", text))
        full.errno = errno.ENOSPC
        return full
    if status >= 500:
        return StoreError(PassingError("storage_error", text))
    return StoreError(FetchError("storage_error", text))


def insistently(request: Callable[[], T]) -> T:
    """What ``request`` returns, tried again for ``TRY_SECONDS``, and ``LEAST_TRIES`` times, while
    its failures may pass.

    Raises:
        StoreError: it never succeeded, or cannot.
    """
    give_up = time.monotonic() + TRY_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    for tries in count(1):
        try:
            return request()
        except StoreError as error:
            may_pass = isinstance(error.meaning, PassingError) and not isinstance(
                error, PermissionError
            )
            is_late = time.monotonic() + pause > give_up and tries >= LEAST_TRIES
            if not may_pass or is_late:
                raise
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    raise AssertionError
