from pathlib import Path

import pytest

from tests.support.samples import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that every whole run of these tests uses."""
    return write_checkpoint(tmp_path_factory.mktemp("model"))
