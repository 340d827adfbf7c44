"""Storage that fails: what is tried again, how often, and what becomes the row."""

import io
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
import urllib3.exceptions

import pipeline.storage.files
import pipeline.storage.retry
import pipeline.storage.web.http
from pipeline.contract.errors import FetchError
from pipeline.storage.objects.connection import silence
from pipeline.storage.retry import DENIED_TRIES, HOPELESS_DENIALS, TRIES, PassingError, Patience
from tests.support.inputs.fetching import code, fetch


class TestRetries:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A storage that fails with ``errors``, one after the other, and then works."""
        state: dict[str, Any] = {"errors": [], "times": 0}

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if state["errors"]:
                    raise state["errors"].pop(0)
                return super().read(size)

        def open_file(protocol: str, path: str, **_: Any) -> File:
            state["times"] += 1
            return File(b"bytes")

        monkeypatch.setattr(pipeline.storage.files, "_open", open_file)
        monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)
        Patience.succeed()
        return state

    def test_passing_failures_are_forgiven(self, opened: dict[str, Any]) -> None:
        errors = [OSError("reset"), TimeoutError("timed out"), PermissionError(), OSError()]
        opened["errors"] = errors.copy()
        (item,) = fetch("x")
        assert item.data == b"bytes"
        assert opened["times"] == 1 + len(errors)

    @pytest.mark.parametrize(
        ("error", "expected", "times"),
        [
            (OSError(5, "Input/output error"), "storage_error", TRIES),
            (ConnectionResetError("reset by peer"), "storage_error", TRIES),
            (aiohttp.ClientPayloadError("not completed"), "storage_error", TRIES),
            (ZeroDivisionError("some filesystem's bug"), "storage_error", TRIES),
            (TimeoutError("timed out"), "timeout", TRIES),
            (PermissionError("no"), "access_denied", DENIED_TRIES),
            (FileNotFoundError("no"), "not_found", 1),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )  # fmt: skip
    def test_stubborn_failures_become_the_row(
        self, opened: dict[str, Any], error: Exception, expected: str, times: int
    ) -> None:
        opened["errors"] = [error] * 99
        (item,) = fetch("x")
        assert code(item) == expected
        assert opened["times"] == times

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (OSError("Couldn't resolve host name"), "storage_error"),
            (
                ConnectionError('Could not connect to the endpoint URL: "http://a/"'),
                "storage_error",
            ),
            (ConnectionRefusedError(111, "Connect call failed"), "storage_error"),
            (OSError(16, "Please reduce your request rate."), "storage_error"),
            (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://a/"), "timeout"),
            (silence(urllib3.exceptions.ConnectTimeoutError("timed out")), "timeout"),
        ],
        ids=["resolve", "botocore", "refused", "busy", "silent", "silent to us"],
    )
    def test_a_server_that_is_away_or_busy_is_waited_for(
        self,
        opened: dict[str, Any],
        error: Exception,
        expected: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        opened["errors"] = [error] * 50
        (item,) = fetch("x")
        assert item.data == b"bytes"
        monkeypatch.setattr(pipeline.storage.retry, "AWAY_SECONDS", 0)
        opened["errors"] = [error] * 50
        (item,) = fetch("x")
        assert code(item) == expected

    def test_where_all_is_denied_nothing_is_tried_again(self, opened: dict[str, Any]) -> None:
        for number in range(HOPELESS_DENIALS + 10):
            opened["errors"], opened["times"] = [PermissionError("no")] * 9, 0
            assert code(fetch("x")[0]) == "access_denied"
            assert opened["times"] == (DENIED_TRIES if number < HOPELESS_DENIALS else 1)
        opened["errors"] = []
        assert fetch("x")[0].data == b"bytes"
        opened["errors"] = [PermissionError("busy, in disguise")]
        assert fetch("x")[0].data == b"bytes"

    def test_denials_of_the_web_say_nothing_of_a_store(
        self, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def deny(*_: object) -> bytes:
            raise FetchError("access_denied", "the server answers 403")

        monkeypatch.setattr(pipeline.storage.web.http, "_get", deny)
        for _ in range(HOPELESS_DENIALS + 1):
            assert code(fetch("http://photos.example/x.jpg")[0]) == "access_denied"
        opened["errors"] = [PermissionError("no")] * 9
        assert code(fetch("x")[0]) == "access_denied"
        assert opened["times"] == DENIED_TRIES

    def test_pauses_grow_and_are_spread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[float] = []
        monkeypatch.setattr("pipeline.storage.retry.time.sleep", made.append)
        for _ in range(20):
            patience = Patience()
            for _ in range(12):
                patience.pause(PassingError("storage_error", "busy", is_busy=True))
        base, longest = (
            pipeline.storage.retry.BACKOFF_SECONDS,
            pipeline.storage.retry.LONGEST_PAUSE_SECONDS,
        )
        for number, pause in enumerate(made):
            most = min(base * 2 ** (number % 12), longest)
            assert most / 2 <= pause <= most
        assert len(set(made)) == len(made)
