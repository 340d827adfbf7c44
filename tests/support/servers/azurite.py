"""A real server of Azure's blobs on loopback: Azurite, which the Makefile takes from npm."""

import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import process
from tests.support.servers.clouds import Cloud, Container

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The public ones of every Azurite."""
PROGRAM = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"


class AzureContainer(Container):
    """Through Microsoft's own client."""

    def __init__(self, client: "ContainerClient") -> None:
        self.client = client
        self.uri = f"az://{client.container_name}"

    def put(self, key: str, body: bytes) -> str:
        self.client.upload_blob(key, body, overwrite=True)
        return f"{self.uri}/{key}"

    def get(self, key: str) -> bytes:
        return self.client.download_blob(key).readall()

    def delete(self, key: str) -> None:
        self.client.delete_blob(key)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(blob.name for blob in self.client.list_blobs(name_starts_with=prefix))


class Azurite(Cloud):
    """It checks signatures, and keeps what it has over ``outage``."""

    scheme = "az"
    start_seconds = 120.0

    def __init__(self) -> None:
        if shutil.which("node") is None or not PROGRAM.exists():
            pytest.skip(f"Azurite is not installed: make {Path(sys.prefix).name}/azurite (npm)")
        self._directory = Path(tempfile.mkdtemp(prefix="azurite-"))
        self.log = self._directory / "log"
        self._port = process.free_ports(1)[0]

    def start(self) -> None:
        from azure.core.exceptions import AzureError

        self._process = process.start(
            [
                *("node", PROGRAM, "--silent", "--disableTelemetry", "--skipApiVersionCheck"),
                *("--location", self._directory, "--blobPort", str(self._port)),
            ],
            log=self.log,
            death_signal=signal.SIGKILL,
        )
        self.wait_until(self.create, AzureError)

    def stop(self) -> None:
        process.stop(self._process, patience=0)
        shutil.rmtree(self._directory, ignore_errors=True)

    def env(self, endpoint: str | None = None) -> dict[str, str]:
        return {"AZURE_STORAGE_CONNECTION_STRING": self.connection_string(endpoint)}

    def connection_string(self, endpoint: str | None = None, key: str = KEY) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
            f"BlobEndpoint={endpoint or self.endpoint}/{ACCOUNT};"
        )

    def create(self) -> AzureContainer:
        from azure.storage.blob import ContainerClient

        name = f"container-{secrets.token_hex(4)}"
        where = self.connection_string()  # where nobody listens yet, other tries come after 15 s
        client = ContainerClient.from_connection_string(where, name, retry_total=0)
        client.create_container()
        return AzureContainer(client)
