"""A web server on loopback whose answers a test writes, and which remembers what it was asked."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One response. ``length`` is the Content-Length when it is to lie; None sends none at all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = -1
    seconds_per_byte: float = 0
    """Waits after every byte of the body."""


@dataclass
class Web:
    """A running server: ``answers`` by path, each a list of which the last one stays."""

    port: int
    scheme: str = "http"
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(Host header, path) of every request."""

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def count(self, path: str) -> int:
        return sum(asked == path for _, asked in self.asked)


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Start a server, of https with a context of TLS; its handler threads end with it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            web.asked.append((self.headers["Host"], self.path))
            answers = web.answers.get(self.path, [Answer(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.body) if answer.length == -1 else answer.length
            if length is None:
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            try:
                self._send(answer)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            if length is not None and length != len(answer.body):
                self.close_connection = True

        def _send(self, answer: Answer) -> None:
            if not answer.seconds_per_byte:
                self.wfile.write(answer.body)
                return
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                time.sleep(answer.seconds_per_byte)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        web = Web(server.server_address[1])
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            web.scheme = "https"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
