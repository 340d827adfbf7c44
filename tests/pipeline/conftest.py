"""Outputs on both kinds of storage, and a small checkpoint."""

from pathlib import Path

import pytest

from pipeline.storage.store import Store
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
def local_store(tmp_path: Path) -> Store:
    """An empty output root on disk."""
    return Store(str(tmp_path / "out"))
