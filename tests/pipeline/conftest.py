"""Outputs on both kinds of storage, and a small checkpoint."""

from pathlib import Path

import pytest

from pipeline.storage.store import Store


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty output root, on disk and on a real S3 server."""
    if request.param == "local":
        return Store(str(tmp_path / "out put"))
    return Store(f"{request.getfixturevalue('s3_bucket').uri}/out put")


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty output root on disk."""
    return Store(str(tmp_path / "out"))
