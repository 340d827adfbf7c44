"""Copies that Azure finishes later, and what its refusals mean."""

import io
from collections.abc import Callable, Mapping

import pytest
import urllib3

from pipeline.storage.objects import connection
from pipeline.storage.objects.azure import blobs
from pipeline.storage.objects.azure.blobs import AzureBlobs
from pipeline.storage.retry import PassingError, StoreError
from pipeline.storage.store import Store
from tests.support.servers.azurite import ACCOUNT, KEY, Azurite

DONE = {"x-ms-copy-id": "1", "x-ms-copy-status": "success"}
PENDING = {"x-ms-copy-id": "1", "x-ms-copy-status": "pending"}

Script = Callable[..., list[str]]


def answer(status: int, headers: Mapping[str, str]) -> urllib3.HTTPResponse:
    sized = {"Content-Length": "0", "ETag": '"e"', **headers}
    return urllib3.HTTPResponse(io.BytesIO(), headers=sized, status=status, preload_content=False)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Lets Azure give these answers, one after the other; returns what it is asked."""
    account = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://h/{ACCOUNT};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
    monkeypatch.setattr(blobs, "_COPY_PAUSE_SECONDS", 0)
    monkeypatch.setattr(connection, "_FIRST_PAUSE_SECONDS", 0.01)

    def play(*answers: tuple[int, Mapping[str, str]]) -> list[str]:
        left, asked = iter(answers), []

        def send(method: str, url: str, *rest: object) -> urllib3.HTTPResponse:
            asked.append(f"{method} {url.rsplit('/', 1)[1]}")
            return answer(*next(left))

        monkeypatch.setattr(blobs, "send", send)
        return asked

    return play


def test_a_copy_is_waited_for(script: Script) -> None:
    asked = script((202, PENDING), (200, PENDING), (503, {}), (200, PENDING), (200, DONE))
    AzureBlobs().cp_file("c/a", "c/b")
    assert asked == ["PUT b", *["HEAD b"] * 4]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(202, PENDING), (200, {**PENDING, "x-ms-copy-status": "failed",
                                 "x-ms-copy-status-description": "500 broken"})], "500 broken"),
        ([(202, PENDING), (200, {**PENDING, "x-ms-copy-status": "aborted"})], "aborted"),
        ([(202, PENDING), (200, {**DONE, "x-ms-copy-id": "2"})], "replaced"),
        ([(202, {"x-ms-copy-id": "1"})], "unknown"),
    ],
)  # fmt: skip
def test_a_copy_that_fails_costs_nothing(
    script: Script, answers: list[tuple[int, Mapping[str, str]]], said: str
) -> None:
    asked = script(*answers)
    with pytest.raises(OSError, match=said):
        AzureBlobs().cp_file("c/a", "c/b")
    assert not [request for request in asked if request.startswith("DELETE")]


def test_a_copy_without_progress_is_given_up(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "COPY_SECONDS", 0.0)
    script((202, PENDING), (200, PENDING), (200, PENDING))
    with pytest.raises(OSError, match="no progress"):
        AzureBlobs().cp_file("c/a", "c/b")


def test_the_copy_of_a_run_that_was_killed_is_waited_for_first(script: Script) -> None:
    busy = (409, {"x-ms-error-code": "PendingCopyOperation"})
    asked = script(busy, (200, PENDING), (200, DONE), (202, {**DONE, "x-ms-copy-id": "2"}))
    AzureBlobs().cp_file("c/a", "c/b")
    assert asked == ["PUT b", "HEAD b", "HEAD b", "PUT b"]


@pytest.mark.parametrize(
    ("status", "code", "kind", "meaning", "passes"),
    [
        (404, "ContainerNotFound", FileNotFoundError, "not_found", False),
        (404, "BlobNotFound", FileNotFoundError, "not_found", False),
        (403, "AuthorizationPermissionMismatch", PermissionError, "access_denied", True),
        (409, "BlobAlreadyExists", FileExistsError, "storage_error", False),
        (412, "ConditionNotMet", FileExistsError, "storage_error", False),
        (409, "BlobArchived", OSError, "storage_error", False),
        (503, "ServerBusy", OSError, "storage_error", True),
        (500, "OperationTimedOut", OSError, "storage_error", True),
        (500, "InternalError", OSError, "storage_error", True),
        (400, "InvalidUri", OSError, "storage_error", False),
    ],
)
def test_refusals(
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    kind: type[OSError],
    meaning: str,
    passes: bool,
) -> None:
    monkeypatch.setattr(connection, "TRY_SECONDS", 0)
    monkeypatch.setattr(connection, "LEAST_TRIES", 1)
    script((status, {"x-ms-error-code": code}), (403, {}))
    with pytest.raises(kind, match=code) as caught:
        AzureBlobs().cat_file("c/a")
    assert isinstance(caught.value, StoreError)
    assert caught.value.meaning.code == meaning
    assert isinstance(caught.value.meaning, PassingError) == passes


def test_directories_of_a_data_lake_are_no_objects(azurite: Azurite) -> None:
    container = azurite.create()
    client = container.client
    client.upload_blob("d", b"", metadata={"hdi_isfolder": "true"})
    container.put("d/a.jpg", b"1")
    with pytest.MonkeyPatch.context() as patch:
        azurite.enter_environment(patch)
        assert Store(container.uri).list("") == {"d/a.jpg": 1}
        assert AzureBlobs().named(f"{client.container_name}/d") is None
