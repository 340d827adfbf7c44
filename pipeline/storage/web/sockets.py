"""Connections that end when their time is up, however slowly the other side talks.

A timeout of a socket bounds the wait for the next byte. A server that sends one now and then, as a
status line, headers, interim responses, a body or trailers, would never meet it; so every wait is
also bounded by the time that is left to the try.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

_INTERIM = (102, 103)
_LINE_BYTES = 2**16


class _Time(threading.local):
    """Until when the try at which a thread is at work may go on; a connection is one thread's."""

    end = float("inf")


_time = _Time()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give everything that this thread reads in the context so much time, all together."""
    _time.end = time.monotonic() + seconds
    try:
        yield
    finally:
        del _time.end


def seconds_left() -> float:
    """Of the time that ``within`` gave this thread; 0 when it is up."""
    return max(_time.end - time.monotonic(), 0.0)


def _bound(connection: socket.socket) -> None:
    """Let the next wait be no longer than the time that is left."""
    usual, left = connection.gettimeout(), seconds_left()
    if not left:
        raise TimeoutError("the time is up")
    if usual is None or left < usual:
        connection.settimeout(left)


class _Socket(socket.socket):
    def recv_into(self, *arguments: Any) -> int:
        _bound(self)
        return super().recv_into(*arguments)


class _TlsSocket(ssl.SSLSocket):
    def recv_into(self, *arguments: Any) -> int:
        _bound(self)
        return super().recv_into(*arguments)

    def do_handshake(self, block: bool = False) -> None:
        _bound(self)
        super().do_handshake(block)


class _Response(HTTPResponse):
    """Passes over interim answers, such as early hints; http.client knows only "100 Continue"."""

    def _read_status(self) -> tuple[str, int, str]:
        usual: Any = super()
        answer: tuple[str, int, str] = usual._read_status()
        while answer[1] in _INTERIM:
            while self.fp.readline(_LINE_BYTES).strip():
                pass  # its headers
            answer = usual._read_status()
        return answer


class _Connection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        bounded = _Socket(fileno=plain.detach())
        bounded.settimeout(plain.gettimeout())
        return bounded


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


def http_pool(address: str, port: int) -> urllib3.HTTPConnectionPool:
    """Connections to an address whose waits ``within`` bounds."""
    return _HttpPool(address, port, maxsize=32)


def https_pool(host: str, address: str, port: int) -> urllib3.HTTPSConnectionPool:
    """The same with TLS; certificates are checked against the name of the host."""
    context = create_urllib3_context()
    context.load_default_certs()
    context.sslsocket_class = _TlsSocket
    return _HttpsPool(address, port, maxsize=32, server_hostname=host, ssl_context=context)
