"""What Google's refusals mean, and copies that take several requests."""

import io
import json
from typing import Any

import fsspec.config
import pytest
import urllib3

from pipeline.storage.objects import connection
from pipeline.storage.objects.google import objects
from pipeline.storage.objects.google.objects import GoogleObjects
from pipeline.storage.retry import PassingError, StoreError

URL = "http://google/storage/v1/b/b/o"


@pytest.fixture(autouse=True)
def anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://google")
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    monkeypatch.setattr(connection, "TRY_SECONDS", 0)
    monkeypatch.setattr(connection, "LEAST_TRIES", 1)


def play(patch: pytest.MonkeyPatch, *answers: tuple[int, Any]) -> list[str]:
    """Let Google give these answers, one after the other; returns what it is asked."""
    left, asked = iter(answers), []

    def send(method: str, url: str, *rest: object) -> urllib3.HTTPResponse:
        asked.append(f"{method} {url}")
        status, said = next(left)
        body = io.BytesIO(json.dumps(said).encode())
        return urllib3.HTTPResponse(body, status=status, preload_content=False)

    patch.setattr(objects, "send", send)
    return asked


def test_a_large_copy_goes_on_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = play(monkeypatch, (200, {"done": False, "rewriteToken": "t/1"}), (200, {"done": True}))
    GoogleObjects().cp_file("b/x y", "b/z")
    copy = f"POST {URL}/x%20y/rewriteTo/b/b/o/z"
    assert asked == [copy, f"{copy}?rewriteToken=t%2F1"]


@pytest.mark.parametrize(
    ("status", "reason", "kind", "meaning", "passes"),
    [
        (404, "notFound", FileNotFoundError, "not_found", False),
        (401, "required", PermissionError, "access_denied", True),
        (403, "forbidden", PermissionError, "access_denied", True),
        (403, "rateLimitExceeded", OSError, "storage_error", True),
        (412, "conditionNotMet", FileExistsError, "storage_error", False),
        (408, "timeout", OSError, "timeout", True),
        (429, "rateLimitExceeded", OSError, "storage_error", True),
        (503, "backendError", OSError, "storage_error", True),
        (400, "invalid", OSError, "storage_error", False),
    ],
)
def test_refusals(
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    reason: str,
    kind: type[OSError],
    meaning: str,
    passes: bool,
) -> None:
    said = {"error": {"code": status, "message": "because", "errors": [{"reason": reason}]}}
    play(monkeypatch, (status, said))
    with pytest.raises(kind, match=f"{status} {reason} .because") as caught:
        GoogleObjects().cat_file("b/x")
    assert isinstance(caught.value, StoreError)
    assert caught.value.meaning.code == meaning
    assert isinstance(caught.value.meaning, PassingError) == passes
    is_busy = isinstance(caught.value.meaning, PassingError) and caught.value.meaning.is_busy
    assert is_busy == (status in (429, 503) or reason == "rateLimitExceeded")


@pytest.mark.parametrize("said", [{}, "no", {"error": "plain"}, {"error": {"message": "m"}}])
def test_a_refusal_may_have_any_text(monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    play(monkeypatch, (403, said))
    with pytest.raises(PermissionError, match="Google answers 403"):
        GoogleObjects().cat_file("b/x")


def test_who_pays_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    payer = {"token": "anon", "requester_pays": "my-project"}
    monkeypatch.setitem(fsspec.config.conf, "gs", payer)
    asked = play(monkeypatch, (404, {}))
    assert GoogleObjects().named("b/x") is None
    assert "userProject=my-project" in asked[0]
