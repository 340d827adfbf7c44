"""Answers that no server should give: they cost a try or a row, never the run, and end in time."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

import pipeline.storage.retry
import pipeline.storage.web.http
from pipeline.contract.errors import FetchError
from pipeline.storage.read_ahead import WindowClosedError
from pipeline.storage.retry import TRIES
from pipeline.storage.web.http import read_url
from tests.support.inputs.fetching import MIB
from tests.support.inputs.raised import RAISED, name
from tests.support.servers.web_server import Answer, serve

Reply = Callable[[socket.socket], None]
LONG = 60.0
"""As nothing takes that ends in time, on the slowest machine."""


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(pipeline.storage.web.http, "READ_SECONDS", LONG)
    yield
    pipeline.storage.web.http._pool.cache_clear()


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a try."""
    monkeypatch.setattr(pipeline.storage.web.http, "TOTAL_SECONDS", 0.5)


@contextmanager
def replying(reply: Reply) -> Iterator[tuple[str, list[int]]]:
    """The URL of a server that speaks as ``reply`` does, and a list with an entry per request."""
    asked: list[int] = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while received := connection.recv(MIB):
                if b"\r\n\r\n" in received:
                    asked.append(1)
                    reply(connection)
                    return

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x.jpg", asked
        listening.shutdown(socket.SHUT_RDWR)


def outcome(url: str) -> bytes | str:
    """The body, or the error code, whose message is a printable line."""
    try:
        return read_url(url, MIB, allow_private=True)
    except FetchError as error:
        return error.code if str(error).isprintable() else "a message that is no line"


def saying(head: bytes, body: bytes = b"xxx") -> Reply:
    return lambda connection: connection.sendall(
        b"HTTP/1.1 " + head + b"\r\nConnection: close\r\n\r\n" + body
    )


@pytest.mark.parametrize(
    "head",
    [b"200 OK\r\nContent-Length: 3, 3", b"200 OK\r\nContent-Length: 3\r\nContent-Length: 3",
     b"200 OK\r\nContent-Length: three", b"200 OK\r\nContent-Length: -3", b"200 OK",
     b"200 OK\r\nContent-Length: " + b"9" * 5000, b"200 OK\r\nContent-Length: \xb3",
     b"200 OK\r\nContent-Length: 0x3", b"200 OK\r\nContent-Type: \xff\xfe", b"200"],
)  # fmt: skip
def test_lengths_that_are_none(head: bytes) -> None:
    with replying(saying(head)) as (url, _):
        assert outcome(url) == b"xxx"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"200 OK\r\nContent-Encoding: gzip", "storage_error"),
        (b"200 OK\r\nTransfer-Encoding: chunked", "storage_error"),
        (b"200 OK\r\n" + b"X: y\r\n" * 500, "storage_error"),
        (b"200 OK\r\nX: " + b"y" * 100_000, "storage_error"),
        (b"999 ?", "storage_error"),
        (b"-1 ?", "storage_error"),
        (b"two hundred", "storage_error"),
        (b"302 Found", "storage_error"),
        (b"302 Found\r\nLocation: http://[::1", "url_refused"),
        (b"302 Found\r\nLocation: http://[broken/x.jpg", "url_refused"),
        (b"302 Found\r\nLocation: http://a:b:c/", "url_refused"),
        (b"302 Found\r\nLocation: http://h:99999999/", "url_refused"),
        (b"302 Found\r\nLocation: \xff\xfe://", "storage_error"),
        (b"302 Found\r\nLocation: gopher://h/x", "url_refused"),
        (b"302 Found\r\nLocation: http://" + b"a." * 300 + b"/", "storage_error"),
        (b"302 Found\r\nLocation: http://a..b/", "storage_error"),
    ],
)
def test_nonsense_costs_a_row(head: bytes, expected: str) -> None:
    with replying(saying(head)) as (url, _):
        assert outcome(url) == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lengths_that_contradict_each_other() -> None:
    """urllib3 refuses them, and leaves the closing of the connection to the garbage collection."""
    with replying(saying(b"200 OK\r\nContent-Length: 3, 5")) as (url, asked):
        assert outcome(url) == "storage_error"
        assert len(asked) == TRIES
    gc.collect()


@pytest.mark.parametrize(
    "text", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"<html>" * 99]
)
def test_what_is_not_http_at_all(text: bytes) -> None:
    with replying(lambda connection: connection.sendall(text)) as (url, asked):
        assert outcome(url) == "storage_error"
        assert len(asked) == TRIES


@pytest.mark.parametrize("error", RAISED, ids=name)
def test_whatever_a_library_raises_is_one_failure(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(pipeline.storage.web.http, "_request", fail)
    assert outcome("http://127.0.0.1:9/x.jpg") == "storage_error"


def test_a_consumer_that_is_gone_is_no_failure() -> None:
    def hold(size: int) -> None:
        raise WindowClosedError

    with serve() as web:
        web.answers["/x.jpg"] = [Answer(body=b"x")]
        with pytest.raises(WindowClosedError):
            read_url(web.url("/x.jpg"), MIB, allow_private=True, hold=hold)


def test_interim_answers_come_before_the_answer() -> None:
    """Some content networks send early hints to everybody."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + hints + b"HTTP/1.1 102 Processing\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz"
    for said in (hints + answer, hints * 3 + answer, interim + answer):
        with replying(saying_at_once(said)) as (url, asked):
            assert outcome(url) == b"xyz"
            assert len(asked) == 1


def saying_at_once(text: bytes) -> Reply:
    return lambda connection: connection.sendall(text)


def test_redirects_to_names_that_are_not_escaped() -> None:
    with serve() as web:
        web.answers["/%C3%BC%20b.jpg"] = [Answer(body=b"x")]
        located = "/ü b.jpg".encode().decode("latin-1")  # as the server's own library writes it
        web.answers["/x.jpg"] = [Answer(302, headers={"Location": located})]
        assert outcome(web.url("/x.jpg")) == b"x"


def dripping(text: bytes, then: bytes) -> Reply:
    """Sends a text, and then something small again and again."""

    def reply(connection: socket.socket) -> None:
        connection.sendall(text)
        end = time.monotonic() + 2 * LONG
        while time.monotonic() < end:
            connection.sendall(then)
            time.sleep(0.02)

    return reply


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "then"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b"HTTP/1.1 103 Early Hints\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED, b"1"),
        (CHUNKED + b"1;", b"x=y;"),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 302 Found\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 500 Sorry\r\nContent-Length: 5000\r\n", b"x"),
    ],
    ids=["status", "a header", "headers", "interim answers", "an interim answer", "hints",
         "a hint", "body", "endless body", "chunks", "size of a chunk", "extension of a chunk",
         "trailers", "redirect", "error"],
)  # fmt: skip
@pytest.mark.usefixtures("half_a_second")
def test_a_try_ends_in_time_whatever_drips(text: bytes, then: bytes) -> None:
    """Each byte comes soon enough; and who talks for so long is not asked again."""
    started = time.monotonic()
    with replying(dripping(text, then)) as (url, asked):
        assert outcome(url) == "timeout"
        assert len(asked) == 1
    assert time.monotonic() - started < LONG


@pytest.mark.usefixtures("half_a_second")
def test_a_handshake_that_never_comes() -> None:
    """The server waits for a request, and the client for the server's certificate."""
    started = time.monotonic()
    with replying(saying(b"200 OK")) as (url, _):
        assert outcome(url.replace("http:", "https:")) == "timeout"
    assert time.monotonic() - started < LONG


def test_redirects_share_the_time_of_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.storage.web.http, "TOTAL_SECONDS", 2)

    def reply(connection: socket.socket) -> None:
        time.sleep(0.8)
        saying(b"302 Found\r\nLocation: /x.jpg\r\nContent-Length: 0", b"")(connection)

    with replying(reply) as (url, asked):
        assert outcome(url) == "timeout"
        assert 2 <= len(asked) <= 3


def test_no_try_begins_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.storage.web.http, "RETRY_SECONDS", -1)
    with serve() as web:
        web.answers["/x.jpg"] = [Answer(503)]
        assert outcome(web.url("/x.jpg")) == "storage_error"
        assert web.count("/x.jpg") == 1
