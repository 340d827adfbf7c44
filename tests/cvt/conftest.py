"""The oracle's models, built once, and their checkpoints in Hugging Face's layout."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if (
    TYPE_CHECKING
):  # transformers reads the environment on import: not before tests/conftest.py set it
    from tests.support.models.oracle import Oracle


@pytest.fixture(scope="session")
def cvt13() -> "Oracle":
    """CvT-13 with 1000 classes."""
    from tests.support.models.oracle import oracle

    return oracle(num_labels=1000)


@pytest.fixture(scope="session")
def cvt13_dir(cvt13: "Oracle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cvt-13")
    cvt13.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small() -> "Oracle":
    """Heads of 8 channels, 7 classes: seconds become milliseconds."""
    from tests.support.models.oracle import SMALL, oracle

    return oracle(**SMALL)


@pytest.fixture(scope="session")
def small_dir(small: "Oracle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    small.save_pretrained(folder)
    return folder
