"""Images on the web: fetched politely, within limits, and from public addresses only.

A list of URLs is other people's input. A name is resolved once, the address is checked, and the
connection goes to that very address, so that nothing (a redirect, a name that resolves to something
else the second time) leads a worker into its own network. Proxies are not used.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as UrlTimeoutError
from urllib3.util import Timeout, Url, parse_url

from pipeline.contract.errors import NOBODYS_FAULT, FetchError, one_line
from pipeline.storage.read_ahead import Hold, WindowClosedError
from pipeline.storage.retry import PassingError, Patience
from pipeline.storage.web.addresses import is_public
from pipeline.storage.web.sockets import http_pool, https_pool, seconds_left, within

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
"""For the next byte."""
TOTAL_SECONDS = 120.0
"""For one try, from the first connection to the last byte, however steadily bytes trickle in. Only
the wait for the resolver comes on top, which bounds itself."""
RETRY_SECONDS = 60.0
"""After this, no further try begins: 64 servers that do their worst hold up a block of images for
minutes, and the run takes that for no standstill."""

_PORTS = {"http": 80, "https": 443}
_SIZE = re.compile(r"[0-9]{1,18}")
_LONE_SURROGATE = re.compile(r"\\ud[89a-f][0-9a-f]{2}")
"""As lists have them escaped."""
_CHUNK_BYTES = 2**16
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "cvt-batch"}


def read_url(
    uri: str, max_bytes: int, *, allow_private: bool = False, hold: Hold = lambda size: None
) -> bytes:
    """The body of a URL, after redirects.

    Args:
        uri: what to get.
        max_bytes: the most it may have.
        allow_private: whether to connect to addresses that are not public.
        hold: called with its total size in bytes, as far as that is known, before they are read.

    Raises:
        FetchError: url_refused for addresses that are not public (unless ``allow_private``), for
            certificates that do not verify and for what is not a URL; not_found, access_denied,
            too_large; timeout and storage_error after as many tries as ``Patience`` allows, of
            which none begins after ``RETRY_SECONDS``; timeout at once if a try takes longer than
            ``TOTAL_SECONDS``.
    """
    patience = Patience()
    last_start = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            return _get(uri, max_bytes, allow_private, patience.tries, hold)
        except PassingError as error:
            if time.monotonic() > last_start:
                raise
            patience.pause(error)


def _get(uri: str, max_bytes: int, allow_private: bool, attempt: int, hold: Hold) -> bytes:
    """One try, which ends in time, and with nothing but a FetchError, whatever the server does."""
    with within(TOTAL_SECONDS):
        try:
            return _follow(uri, max_bytes, allow_private, attempt, hold)
        except (*NOBODYS_FAULT, WindowClosedError):
            raise
        except BaseException as error:  # libraries raise what they trip over
            if not seconds_left():
                late = FetchError("timeout", f"incomplete after {TOTAL_SECONDS:.0f} s")
                raise late from error
            raise _classify(error) from error


def _follow(uri: str, max_bytes: int, allow_private: bool, attempt: int, hold: Hold) -> bytes:
    target = uri
    for _ in range(MAX_REDIRECTS + 1):
        url = _parse(target)
        response = _request(url, _resolve(url, allow_private), attempt)
        try:
            location = response.get_redirect_location()
            if not location:
                _check_status(response)
                return _read(response, max_bytes, hold)
            target = _redirected(url, location)
        finally:
            response.close()
    raise FetchError("storage_error", f"more than {MAX_REDIRECTS} redirects")


def _redirected(url: Url, location: str) -> str:
    """Where a redirect leads. http.client takes each byte of a header for a character."""
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    try:
        return urljoin(url.url, location)
    except ValueError as error:
        raise FetchError("url_refused", f"redirected to no URL: {one_line(error)}") from error


def _parse(target: str) -> Url:
    try:
        url = parse_url(target)
    except (ValueError, LocationParseError) as error:
        raise FetchError("url_refused", f"not a URL: {one_line(error)}") from error
    if url.scheme not in _PORTS or not url.host:
        raise FetchError("url_refused", f"not an http(s) URL with a host: {one_line(target)}")
    if url.auth:
        raise FetchError("url_refused", "the URL has a name or password before its host")
    if _LONE_SURROGATE.search(target):
        raise FetchError("url_refused", "the URL is not valid Unicode")
    return url


def _port(url: Url) -> int:
    return url.port or _PORTS[url.scheme or "http"]


def _resolve(url: Url, allow_private: bool) -> list[str]:
    """The addresses of the URL's host, all of them checked."""
    host = (url.host or "").strip("[]")
    try:
        found = socket.getaddrinfo(host, _port(url), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PassingError("storage_error", f"cannot resolve {host}: {one_line(error)}") from error
    addresses = [str(address[0]) for *_, address in found]
    for address in addresses:
        if not (allow_private or is_public(address)):
            raise FetchError(
                "url_refused",
                f"{host} is at {address}, which is not public; --allow-private-urls fetches it",
            )
    return addresses


@lru_cache(maxsize=64)
def _pool(scheme: str, host: str, address: str, port: int) -> urllib3.HTTPConnectionPool:
    """Connections to an address; certificates are checked against the name of the host."""
    return http_pool(address, port) if scheme == "http" else https_pool(host, address, port)


def _request(url: Url, addresses: list[str], attempt: int) -> urllib3.BaseHTTPResponse:
    """Each try goes to the next address of the host."""
    address = addresses[attempt % len(addresses)]
    pool = _pool(url.scheme or "", (url.host or "").strip("[]"), address, _port(url))
    try:
        return pool.urlopen(
            "GET",
            url.request_uri,
            headers=_HEADERS | {"Host": url.netloc or ""},
            timeout=Timeout(connect=min(CONNECT_SECONDS, seconds_left()), read=READ_SECONDS),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
        )
    except SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise
        raise FetchError(
            "url_refused",
            f"the certificate of {url.host} is not trusted ({_reason(error)}); SSL_CERT_FILE can "
            "name other authorities",
        ) from error


def _reason(error: SSLError) -> str:
    """The reason that OpenSSL gives, without the codes around it."""
    found = re.search(r"verify failed: ([^()]*[^() ])", str(error))
    return found[1] if found else one_line(error)


def _classify(error: BaseException) -> FetchError:
    if isinstance(error, FetchError):
        return error
    if not isinstance(error, HTTPError | OSError):
        text = f"the answer cannot be read ({type(error).__name__}: {one_line(error)})"
        return FetchError("storage_error", text)
    is_late = isinstance(error, UrlTimeoutError | TimeoutError)
    is_refused = isinstance(error, NewConnectionError)  # also a timeout to urllib3
    code = "timeout" if is_late and not is_refused else "storage_error"
    return PassingError(code, one_line(error))


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    text = f"the server answers {status} {response.reason or ''}".rstrip()
    if status == 200:
        return
    if status in (404, 410):
        raise FetchError("not_found", text)
    if status in (401, 403):
        raise FetchError("access_denied", text)
    if status in (408, 429) or status >= 500:
        code = "timeout" if status in (408, 504) else "storage_error"
        pause = _retry_after(response.headers.get("Retry-After"))
        raise PassingError(code, text, retry_after=pause)
    raise FetchError("storage_error", text)


def _retry_after(value: str | None) -> float:
    """Seconds to wait, from a number or a date; 0 if it is neither."""
    if not value:
        return 0
    if value.strip().isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # not a date, or one without a time zone
        return 0


def _announced(response: urllib3.BaseHTTPResponse) -> int:
    """Its size in bytes, 0 if the server does not say, or says what is no size. Some proxies say it
    twice."""
    said = {text.strip() for text in response.headers.get("Content-Length", "").split(",")}
    text = said.pop()
    return int(text) if not said and _SIZE.fullmatch(text) else 0


def _read(response: urllib3.BaseHTTPResponse, max_bytes: int, hold: Hold) -> bytes:
    too_large = FetchError("too_large", f"more bytes than --max-bytes {max_bytes}")
    announced = _announced(response)
    if announced > max_bytes:
        raise too_large
    hold(announced)
    data = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise too_large
        if len(data) > announced:
            hold(len(data) + _CHUNK_BYTES)
    return bytes(data)
