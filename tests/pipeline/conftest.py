"""Outputs on both kinds of storage, and a small checkpoint."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from pipeline.storage.store import Store
from tests.support import needs
from tests.support.processes import process, victims
from tests.support.servers.clouds import Cloud

CLOUDS = {"az": "azurite", "gs": "fake_gcs"}


@pytest.fixture(
    params=["local", *(pytest.param(name, marks=pytest.mark.server) for name in ("s3", *CLOUDS))]
)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty output root, on disk and on real servers of S3, Azure and Google."""
    if request.param == "local":
        return Store(str(tmp_path / "out put"))
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3_bucket').uri}/out put")
    cloud: Cloud = request.getfixturevalue(CLOUDS[request.param])
    cloud.enter_environment(monkeypatch)
    return Store(f"{cloud.create().uri}/out put")


@pytest.fixture
def moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty output root on moto, an S3 server by other people than SeaweedFS's."""
    pytest.importorskip("moto", reason="moto[server] is not installed: see CONTRIBUTING.md")
    needs.demand("server")
    (port,) = process.free_ports(1)
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    server = process.start(command, log=tmp_path / "moto.log")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anything")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        victims.wait_until(lambda: _listens(port), "moto", 120)
        s3fs.S3FileSystem().mkdir("bucket")
        yield Store("s3://bucket/out put+ü")
    finally:
        process.stop(server)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty output root on disk."""
    return Store(str(tmp_path / "out"))
