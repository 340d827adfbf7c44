"""Images on the web: a real server on loopback, and addresses that must not be reached."""

import itertools
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3.util.connection

import pipeline.storage.retry
import pipeline.storage.web.http
from pipeline.contract.errors import FetchError
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import ReadOptions
from pipeline.storage.retry import LONGEST_RETRY_AFTER_SECONDS, TRIES
from pipeline.storage.web.http import read_url
from tests.support.inputs.fetching import MIB, code, work
from tests.support.inputs.listing import rows
from tests.support.servers.web_server import Answer, Web, serve


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0.001)
    with serve() as server:
        yield server
    pipeline.storage.web.http._pool.cache_clear()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr("pipeline.storage.retry.time.sleep", made.append)
    return made


def get(url: str, max_bytes: int = MIB) -> bytes:
    return read_url(url, max_bytes, allow_private=True)


def refusal(url: str, *, allow_private: bool = True, max_bytes: int = MIB) -> str:
    """The error code of a URL; its message is a printable line."""
    with pytest.raises(FetchError) as caught:
        read_url(url, max_bytes, allow_private=allow_private)
    assert str(caught.value).isprintable()
    return caught.value.code


def test_body_comes_through(web: Web) -> None:
    body = bytes(range(256)) * 3000
    web.answers["/a%20b/%E6%97%A5.jpg?w=1&h=%2F"] = [Answer(body=body)]
    assert get(web.url("/a b/日.jpg?w=1&h=%2F#part"), len(body)) == body
    assert web.asked == [(f"127.0.0.1:{web.port}", "/a%20b/%E6%97%A5.jpg?w=1&h=%2F")]


def test_body_without_a_length(web: Web) -> None:
    web.answers["/x"] = [Answer(body=b"x" * 1000, length=None)]
    assert get(web.url("/x")) == b"x" * 1000
    assert refusal(web.url("/x"), max_bytes=999) == "too_large"


@pytest.mark.parametrize(
    ("status", "expected", "times"),
    [(404, "not_found", 1), (410, "not_found", 1), (401, "access_denied", 1),
     (403, "access_denied", 1), (418, "storage_error", 1), (204, "storage_error", 1),
     (429, "storage_error", TRIES), (500, "storage_error", TRIES), (503, "storage_error", TRIES),
     (504, "timeout", TRIES)],
)  # fmt: skip
def test_what_the_server_says_decides(web: Web, status: int, expected: str, times: int) -> None:
    web.answers["/x"] = [Answer(status)]
    assert refusal(web.url("/x")) == expected
    assert web.count("/x") == times


class TestRetries:
    def test_busy_servers_are_asked_again(self, web: Web, pauses: list[float]) -> None:
        web.answers["/x"] = [Answer(429), Answer(503), Answer(500), Answer(body=b"x")]
        assert get(web.url("/x")) == b"x"
        base = pipeline.storage.retry.BACKOFF_SECONDS
        for number, pause in enumerate(pauses):
            assert base * 2**number / 2 <= pause <= base * 2**number
        assert len(set(pauses)) == 3

    def test_retry_after_is_obeyed_within_reason(self, web: Web, pauses: list[float]) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        headers = [{"Retry-After": value} for value in ("7", date, "99999")]
        web.answers["/x"] = [*(Answer(429, headers=h) for h in headers), Answer(body=b"x")]
        assert get(web.url("/x")) == b"x"
        seven, thirty, capped = pauses
        assert seven == 7
        assert 27 < thirty <= 30
        assert capped == LONGEST_RETRY_AFTER_SECONDS

    @pytest.mark.parametrize("value", ["soon", "-5", "", "Tue, 99 Foo 2026"])
    def test_retry_after_that_says_nothing(self, web: Web, pauses: list[float], value: str) -> None:
        web.answers["/x"] = [Answer(503, headers={"Retry-After": value}), Answer(body=b"x")]
        assert get(web.url("/x")) == b"x"
        assert pauses[0] < 1

    def test_cut_bodies_are_fetched_again(self, web: Web) -> None:
        web.answers["/x"] = [Answer(body=b"half", length=8), Answer(body=b"half and"), Answer()]
        assert get(web.url("/x")) == b"half and"
        web.answers["/y"] = [Answer(body=b"half", length=8)]
        assert refusal(web.url("/y")) == "storage_error"

    def test_nobody_there(self, web: Web) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            assert refusal(f"http://127.0.0.1:{taken.getsockname()[1]}/x") == "storage_error"


class TestBounds:
    def test_huge_by_its_header_is_not_read(self, web: Web) -> None:
        web.answers["/x"] = [Answer(body=b"x", length=10**12)]
        assert refusal(web.url("/x")) == "too_large"
        assert web.count("/x") == 1

    def test_a_server_that_hangs(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline.storage.web.http, "READ_SECONDS", 0.3)
        web.answers["/x"] = [Answer(body=b"xxx", seconds_per_byte=1)]
        assert refusal(web.url("/x")) == "timeout"
        assert web.count("/x") == TRIES

    def test_a_server_that_drips(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline.storage.web.http, "TOTAL_SECONDS", 0.2)
        web.answers["/x"] = [Answer(body=b"x" * 100, seconds_per_byte=0.05)]
        assert refusal(web.url("/x")) == "timeout"

    def test_redirects_end(self, web: Web) -> None:
        web.answers["/x"] = [Answer(302, headers={"Location": "/x"})]
        assert refusal(web.url("/x")) == "storage_error"
        assert web.count("/x") == pipeline.storage.web.http.MAX_REDIRECTS + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web: Web, status: int) -> None:
    web.answers["/a/x"] = [Answer(status, headers={"Location": "../y?q"})]
    web.answers["/y?q"] = [Answer(body=b"y")]
    assert get(web.url("/a/x")) == b"y"


class TestAddresses:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433", "0x7f000001", "0"]
    )
    def test_private_addresses_are_not_asked_however_they_are_spelt(
        self, web: Web, host: str
    ) -> None:
        assert refusal(web.url("/x", host), allow_private=False) == "url_refused"
        assert not web.asked

    def test_redirect_to_a_private_address(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first hop passes for public here; the second one does not."""
        monkeypatch.setattr(
            pipeline.storage.web.http, "is_public", lambda address: address == "127.0.0.1"
        )
        for target in ("http://10.0.0.1/y", f"http://[::1]:{web.port}/y", "//169.254.169.254/y"):
            web.answers["/x"] = [Answer(302, headers={"Location": target})]
            assert refusal(web.url("/x"), allow_private=False) == "url_refused"
        assert web.count("/y") == 0

    def test_the_checked_address_is_the_one_that_is_asked(
        self, web: Web, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name that resolves to something else the second time gains nothing."""
        monkeypatch.setattr(
            pipeline.storage.web.http, "is_public", lambda address: address == "127.0.0.1"
        )
        resolve = socket.getaddrinfo
        answers = iter(["127.0.0.1"])
        names: list[str] = []

        def rebind(host: str, *args: Any, **options: Any) -> Any:
            if host == "rebind.example":
                names.append(host)
                host = next(answers, "192.0.2.1")
            return resolve(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", rebind)
        web.answers["/x"] = [Answer(body=b"x")]
        url = web.url("/x", "rebind.example")
        assert read_url(url, MIB) == b"x"
        assert names == ["rebind.example"]
        assert web.asked == [(f"rebind.example:{web.port}", "/x")]
        assert refusal(url, allow_private=False) == "url_refused"

    @pytest.fixture
    def connections(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The addresses that are connected to; only one of them counts as public."""
        made: list[str] = []
        connect = urllib3.util.connection.create_connection

        def note(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
            made.append(address[0])
            return connect(address, *args, **options)

        monkeypatch.setattr("urllib3.connection.connection.create_connection", note)
        monkeypatch.setattr(pipeline.storage.web.http, "is_public", lambda ip: ip == "127.0.0.1")
        return made

    def resolve_to(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        """What a resolver says of any name that ends in .example, one after the other."""
        said = itertools.cycle(answers)
        resolve = socket.getaddrinfo

        def answer(host: str, *args: Any, **options: Any) -> Any:
            return resolve(next(said) if host.endswith(".example") else host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    def test_a_name_that_rebinds_is_checked_each_time(
        self, web: Web, monkeypatch: pytest.MonkeyPatch, connections: list[str]
    ) -> None:
        """It is public when it is first asked for, and inside when the server wants a second try,
        or redirects to itself."""
        web.answers["/busy"] = [Answer(503), Answer(body=b"secret")]
        web.answers["/moved"] = [Answer(302, headers={"Location": "/busy"})]
        for path in ("/busy", "/moved"):
            self.resolve_to(monkeypatch, "127.0.0.1", "10.0.0.7")
            assert refusal(web.url(path, "rebind.example"), allow_private=False) == "url_refused"
        assert set(connections) == {"127.0.0.1"}

    @pytest.mark.parametrize(
        "inside", ["169.254.169.254", "10.0.0.7", "192.168.0.1", "::1", "fe80::1", "fd00:ec2::254",
                   "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]
    )  # fmt: skip
    def test_names_and_redirects_that_lead_inside(
        self, web: Web, monkeypatch: pytest.MonkeyPatch, connections: list[str], inside: str
    ) -> None:
        """Whether by an address of their own or by a CNAME, the resolver tells only the end."""
        self.resolve_to(monkeypatch, inside)
        assert refusal("http://cdn.example/x", allow_private=False) == "url_refused"
        literal = f"[{inside}]" if ":" in inside else inside
        for target in (f"http://{literal}/x", "//cdn.example/x", "https://cdn.example:9/x"):
            web.answers["/x"] = [Answer(302, headers={"Location": target})]
            assert refusal(web.url("/x"), allow_private=False) == "url_refused"
        assert set(connections) == {"127.0.0.1"}

    def test_one_private_address_among_several_refuses(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = [(2, 1, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        assert refusal("http://both.example/x", allow_private=False) == "url_refused"

    @pytest.mark.parametrize(
        "url",
        ["http://user:secret@h.example/x", "http:///x", "http://", "http://h:99999999/x",
         "http://[::1/x"],
    )  # fmt: skip
    def test_what_is_no_url_to_fetch(self, url: str) -> None:
        assert refusal(url) == "url_refused"

    @pytest.mark.parametrize(
        "target", ["file:///etc/passwd", "ftp://h.example/x", "http://u:p@127.0.0.1/"]
    )
    def test_redirects_to_what_is_no_url_to_fetch(self, web: Web, target: str) -> None:
        web.answers["/x"] = [Answer(302, headers={"Location": target})]
        assert refusal(web.url("/x")) == "url_refused"


def test_a_list_of_urls_ends_in_items(web: Web, tmp_path: Path) -> None:
    web.answers["/a.jpg"] = [Answer(body=b"a")]
    web.answers["/b.tar"] = [Answer(body=b"b")]
    urls = [web.url(path) for path in ("/a.jpg", "/b.tar", "/gone.jpg")]
    (tmp_path / "l.txt").write_text("\n".join(urls))
    table = work(*rows(tmp_path / "l.txt"))
    items = list(fetch_items(table, MIB, ReadOptions(allow_private_urls=True)))
    assert [item.uri for item in items] == urls
    assert [item.data for item in items] == [b"a", b"b", None]
    assert [code(item) for item in items] == [None, None, "not_found"]
    assert {code(item) for item in fetch_items(table, MIB)} == {"url_refused"}
    assert len({host for host, _ in web.asked}) == 1


@pytest.mark.parametrize("length", [-1, None], ids=["announced", "not announced"])
def test_bytes_are_asked_for_before_they_are_held(web: Web, length: int | None) -> None:
    body = bytes(300_000)
    web.answers["/x"] = [Answer(body=body, length=length)]
    held: list[int] = []
    assert read_url(web.url("/x"), MIB, allow_private=True, hold=held.append) == body
    assert held == sorted(held)
    assert held[-1] >= len(body)
    assert (len(held) == 1) == (length == -1)
