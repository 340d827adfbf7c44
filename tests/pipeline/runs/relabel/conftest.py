"""An output to relabel, and another one for the new labels."""

from pathlib import Path

import pytest

from pipeline.storage.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "source"))


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "output"))
