"""An output to learn from, and a directory of models."""

from pathlib import Path

import pytest

from pipeline.storage.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture
def models(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "models"))
