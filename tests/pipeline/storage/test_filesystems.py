"""Filesystems by protocol, and the storage settings that travel to workers."""

import os
import pickle
import sys

import pytest

from pipeline.contract.errors import UsageError
from pipeline.storage.filesystems import WorkerEnvironment, filesystem


@pytest.mark.parametrize("protocol", ["s4", "az", "abfs", "gs", "oss"])
def test_unusable_protocols_are_usage_errors(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown, and in need of a package that is not installed."""
    for package in ("adlfs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"cannot open {protocol}://"):
        filesystem(protocol)


class TestWorkerEnvironment:
    def test_credentials_never_show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        monkeypatch.setenv("FSSPEC_S3_KEY", "hunter3")
        monkeypatch.setenv("https_proxy", "http://user:hunter4@proxy")
        environment = WorkerEnvironment.capture()
        assert {"AWS_SECRET_ACCESS_KEY", "FSSPEC_S3_KEY", "https_proxy"} <= set(
            environment.variables
        )
        for text in (repr(environment), str(environment), f"{[environment]}"):
            assert "hunter" not in text

    def test_only_storage_settings_travel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
        assert "DATABASE_PASSWORD" not in WorkerEnvironment.capture().variables
        assert "PATH" not in WorkerEnvironment.capture().variables

    def test_worker_sees_what_the_driver_saw(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://driver")
        travelled = pickle.loads(pickle.dumps(WorkerEnvironment.capture()))
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://worker")
        travelled.apply()
        assert os.environ["AWS_ENDPOINT_URL"] == "http://driver"
