"""A checkpoint of transformers, and actors that need no Ray."""

from pathlib import Path

import pytest

from tests.support.models.oracle import Oracle, save_oracle


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Oracle, Path]:
    folder = tmp_path_factory.mktemp("checkpoint")
    return save_oracle(folder), folder


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray's object store would hand out is handed over directly."""
    monkeypatch.setattr("pipeline.stages.infer.actor.ray.get", lambda reference: reference)
