"""Credentials that Azure and Google refuse are no property of an image, and go nowhere else."""

from collections.abc import Iterator

import fsspec.config
import pytest
from google.oauth2.credentials import Credentials

from pipeline.contract.errors import CredentialsError, FetchError, UsageError
from pipeline.storage.files import read_bytes
from pipeline.storage.filesystems import filesystem, refusal_of_credentials
from pipeline.storage.objects.azure.blobs import AzureBlobs
from tests.support.inputs.fetching import code, fetch
from tests.support.servers.azurite import KEY
from tests.support.servers.clouds import Cloud, Container, proxy_before
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults

STATUS = {"az": 403, "gs": 401}
"""With which each of them refuses credentials."""


@pytest.fixture
def proxy(
    cloud: Cloud, container: Container, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """Before a server that knows who asks."""
    monkeypatch.setattr("pipeline.storage.retry.BACKOFF_SECONDS", 0.01)
    with proxy_before(cloud, monkeypatch) as proxy:
        token = Credentials("a-secret-token")
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": token})
        yield proxy


@pytest.mark.parametrize("kind", ["image", "webdataset", "parquet"])
def test_that_expire_stop_the_run(container: Container, proxy: FaultProxy, kind: str) -> None:
    uri = container.put("a", b"1")
    status = STATUS[uri[:2]]
    proxy.faults = Faults(credentials_code="AuthenticationFailed", credentials_status=status)
    with pytest.raises(CredentialsError, match=f"answers {status}.*renew") as stopped:
        fetch(uri, kind=kind)
    assert "a-secret-token" not in str(stopped.value)
    assert KEY not in str(stopped.value)
    assert refusal_of_credentials(uri)


def test_that_are_refused_for_one_object_are_not_to_blame(
    container: Container, proxy: FaultProxy
) -> None:
    uris = [container.put(f"{name}.jpg", b"1") for name in "abc"]
    proxy.faults = Faults(denied_pattern=r"b\.jpg", denied_code="AuthenticationFailed")
    assert [code(item) for item in fetch(*uris)] == [None, "access_denied", None]
    assert refusal_of_credentials(uris[0]) is None


def test_what_writes_meets_an_error_of_storage(container: Container, proxy: FaultProxy) -> None:
    """Such as the heartbeat of a lease, which goes on."""
    proxy.faults = Faults(
        credentials_code="AuthenticationFailed", credentials_status=STATUS[container.uri[:2]]
    )
    fs = filesystem(container.uri[:2])
    path = container.uri.partition("://")[2] + "/x"
    with pytest.raises(PermissionError):
        fs.cat_file(path)
    with pytest.raises(PermissionError):
        fs.pipe_file(path, b"1")


@pytest.mark.parametrize("host", ["evil.example", "a.blob.core.windows.net.evil.example",
                                  "evil.example#a.blob.core.windows.net", "10.0.0.1",
                                  "a.dfs.core.windows.net:8080"])  # fmt: skip
def test_are_shown_to_no_other_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is other people's input."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=a;AccountKey={KEY};")
    with pytest.raises(UsageError, match="not the host of an Azure account"):
        AzureBlobs().named(f"container@{host}/x.jpg")
    with pytest.raises(FetchError, match="not the host") as refused:
        read_bytes(f"az://container@{host}/x.jpg")
    assert refused.value.code == "url_refused"
