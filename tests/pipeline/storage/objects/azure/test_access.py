"""Which account a URI leads to, and what lets a request in."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.contract.errors import UsageError
from pipeline.storage.objects.azure.access import account
from pipeline.storage.objects.azure.blobs import AzureBlobs
from tests.support.servers.azurite import ACCOUNT, KEY, Azurite

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


def test_the_host_of_a_uri_names_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ANON", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    assert account("").url == "https://mine.blob.core.windows.net"
    assert account("a.dfs.core.windows.net").url == "https://a.blob.core.windows.net"
    assert account("b.blob.core.chinacloudapi.cn").url == "https://b.blob.core.chinacloudapi.cn"


def test_no_account_at_all_is_said() -> None:
    with pytest.raises(UsageError, match="set AZURE_STORAGE_ACCOUNT_NAME"):
        account("")


def test_the_connection_string_of_another_account_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CONNECTION, f"AccountName=mine;AccountKey={KEY};")
    with pytest.raises(UsageError, match=r"of the account yours, and AZURE_.* of mine"):
        account("yours.dfs.core.windows.net")


def test_no_secret_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECTION, f"AccountName=mine;AccountKey={KEY};")
    assert KEY not in repr(account(""))


def test_a_uri_with_a_host_is_read_and_keeps_it(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    azurite.enter_environment(monkeypatch)
    container = azurite.create()
    container.put("p/a b.jpg", b"1")
    name = container.client.container_name
    for root in (name, f"{name}@{ACCOUNT}.dfs.core.windows.net",
                 f"{ACCOUNT}.dfs.core.windows.net/{name}"):  # fmt: skip
        found = [info["name"] for info in AzureBlobs().below(f"{root}/p")]
        assert found == [f"{root}/p/a b.jpg"]
        assert AzureBlobs().cat_file(found[0]) == b"1"


def test_a_wrong_key_is_refused(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECTION, azurite.connection_string(key="d3Jvbmc="))
    with pytest.raises(PermissionError, match="403"):
        AzureBlobs().named("container/x")


def test_a_sas_token_reads_writes_and_copies(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.storage.blob import generate_container_sas

    container = azurite.create()
    name = str(container.client.container_name)
    until = datetime.now(UTC) + timedelta(hours=1)
    sas = generate_container_sas(ACCOUNT, name, KEY, permission="racwdl", expiry=until)
    where = f"BlobEndpoint={azurite.endpoint}/{ACCOUNT};SharedAccessSignature={sas}"
    monkeypatch.setenv(CONNECTION, where)
    fs = AzureBlobs()
    fs.pipe_file(f"{name}/a?b#c", b"1")
    fs.cp_file(f"{name}/a?b#c", f"{name}/b")
    assert [info["name"] for info in fs.below(name)] == [f"{name}/a?b#c", f"{name}/b"]
    assert container.get("b") == b"1"
