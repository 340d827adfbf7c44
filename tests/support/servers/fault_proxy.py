"""An HTTP/1.1 proxy in front of an S3 server that counts requests and makes some of them fail."""

import http.client
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, unquote_plus, urlsplit

from tests.support.servers.faults import Faults, Request

_CHUNK_BYTES = 1 << 16
_HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}
# As on the wire: SO_LINGER with a timeout of zero turns close() into a reset.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_REFUSALS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "internal_error": (500, "InternalError", "We encountered an internal error."),
}


class FaultProxy:
    """The proxy as a context manager; ``endpoint`` takes the place of the server's own.

    Requests go through byte for byte, Host included, so signatures stay valid. ``faults`` may be
    replaced at any time; ``requests`` holds what arrived so far. With a ``region``, all that is
    signed for another one is refused, as AWS does it.
    """

    def __init__(self, upstream: str, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.region: str | None = None
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._attempts: dict[str, int] = {}
        self._gets = 0
        self._server = _Server(self, urlsplit(upstream).netloc)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        if self._server.errors and exc_info[0] is None:
            raise self._server.errors[0]

    def count(self, method: str = "", *, fault: str = "", path: str = "") -> int:
        """Count the requests with this method and this fault whose path matches a whole pattern."""
        with self._lock:
            return sum(
                method in ("", request.method)
                and fault in ("", request.fault)
                and re.fullmatch(path or ".*", request.path, re.DOTALL) is not None
                for request in self.requests
            )

    def admit(self, method: str, target: str, headers: Mapping[str, str]) -> str | None:
        """Record a request, wait for the latency and return the fault to commit, if any."""
        path, _, query = target.partition("?")
        path = unquote(path)
        faults = self.faults
        chosen = (
            method in faults.methods and re.search(faults.pattern, f"{path}?{query}") is not None
        )
        with self._lock:
            fault = None
            if faults.credentials_code and self._gets >= faults.good_gets:
                fault = "credentials"
            elif chosen:
                self._gets += 1
                attempt = self._attempts[path] = self._attempts.get(path, 0) + 1
                fault = faults.draw(path.split("/", 2)[-1], attempt)
                if faults.denied_pattern and re.search(faults.denied_pattern, path):
                    fault = "access_denied"
            request = Request(method, path, query, fault, headers)
            self.requests.append(request)
        if self.region and request.region not in (None, self.region):
            return "region"
        if chosen and faults.latency_seconds:
            self.stopping.wait(faults.latency_seconds)
        return fault


class _Server(ThreadingHTTPServer):
    """One thread per connection, all of them joined at the end."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, proxy: FaultProxy, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.upstream = upstream
        self.errors: list[BaseException] = []
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _RESET_ON_CLOSE:
            self.close_request(request)  # without the polite shutdown before it
        else:
            super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake the threads that wait for another request on a connection kept alive."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep an error for the end; a client or a server that hung up is none."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    """The requests of one client connection, passed on over one connection to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer leaves in few packets
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: ``FaultProxy.requests`` is the log."""

    def handle_expect_100(self) -> bool:
        """Tell the client at once that its body is welcome."""
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def _relay(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client hung up")
        if "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.server.proxy.admit(self.command, self.path, headers)
        if fault == "region":
            self._refuse_region(self.server.proxy.region or "")
        elif fault == "credentials":
            faults = self.server.proxy.faults
            self._refuse(faults.credentials_status, faults.credentials_code, "They are bad.")
        elif fault == "access_denied":
            faults = self.server.proxy.faults
            self._refuse(faults.denied_status, faults.denied_code, "Access Denied")
        elif fault in _REFUSALS:
            self._refuse(*_REFUSALS[fault])
        elif fault == "reset":
            self._reset()
        else:
            self._answer(self._ask(body), fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _relay  # noqa: N815 (http.server's names)

    def _ask(self, body: bytes) -> http.client.HTTPResponse:
        """Send the request on; a second time when the server had closed the idle connection."""
        try:
            return self._send(body)
        except ConnectionError:
            self._upstream.close()
            return self._send(body)

    def _send(self, body: bytes) -> http.client.HTTPResponse:
        upstream = self._upstream
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in _end_to_end(self.headers.items()):
            upstream.putheader(name, value)
        upstream.endheaders(body or None)
        return upstream.getresponse()

    def _answer(self, response: http.client.HTTPResponse, fault: str | None) -> None:
        faults = self.server.proxy.faults
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query and (faults.unlisted or faults.ghosts):
            self._send_xml(200, _lagging(response.read(), query, faults))
            return
        self.send_response_only(response.status, response.reason)
        for name, value in _end_to_end(response.getheaders()):
            self.send_header(name, value)
        chunks: Iterable[bytes] = iter(lambda: response.read(_CHUNK_BYTES), b"")
        length = response.length or 0
        if response.chunked:
            chunks = [response.read()]
            length = len(chunks[0])
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self._send_body(chunks, length if fault is None else length // 2)
        if fault == "stall":
            self.server.proxy.stopping.wait(self.server.proxy.faults.stall_seconds)
        self.close_connection = fault is not None

    def _send_body(self, chunks: Iterable[bytes], limit: int) -> None:
        for chunk in chunks:
            self.wfile.write(chunk[:limit])
            limit -= len(chunk)
            if limit < 0:
                break
        self.wfile.flush()

    def _refuse_region(self, region: str) -> None:
        text = "The authorization header is malformed; the region is wrong"
        self._refuse(400, "AuthorizationHeaderMalformed", text, region=region)

    def _refuse(self, status: int, code: str, message: str, *, region: str = "") -> None:
        element = f"<Region>{region}</Region>" if region else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>{element}</Error>"
        ).encode() * (self.command != "HEAD")
        headers = {"x-amz-bucket-region": region} if region else {}
        # Azure's, which others do not look at.
        self._send_xml(status, body, headers | {"x-ms-error-code": code})

    def _send_xml(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close_connection = True


def _lagging(xml: bytes, query: Mapping[str, list[str]], faults: Faults) -> bytes:
    """A listing that has not heard of some objects, and not of the end of others."""

    def entry(match: re.Match[str]) -> str:
        is_known = not faults.unlisted or not re.search(faults.unlisted, unquote_plus(match[2]))
        return match[0] if is_known else ""

    tags = r"(?s)<(Contents|CommonPrefixes)>.*?<(?:Key|Prefix)>(.*?)</.*?</\1>"
    text = re.sub(tags, entry, xml.decode())
    (prefix,) = query.get("prefix", [""])
    ghosts = [key for key in faults.ghosts if key.startswith(prefix) and "delimiter" not in query]
    named = "".join(
        f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
        '<ETag>"0"</ETag><Size>9</Size></Contents>'
        for key in ghosts
        if quote(key) not in text
    )
    return text.replace("</ListBucketResult>", f"{named}</ListBucketResult>").encode()


def _end_to_end(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP)
