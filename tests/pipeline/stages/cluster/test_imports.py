"""Workers that would import another package than ours."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.stages.cluster.imports import check_imports
from tests.support.commands import REPOSITORY


@pytest.mark.parametrize("name", ["pipeline/__init__.py", "pipeline.py"])
def test_a_connected_ray_whose_workers_import_another_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's ``ray.init``, which puts the working directory first."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    worker: Any = import_module("ray._private.worker").global_worker
    job = SimpleNamespace(py_driver_sys_path=[str(REPOSITORY), str(tmp_path)])
    core_worker = SimpleNamespace(get_job_config=lambda: job)
    monkeypatch.setattr(worker, "core_worker", core_worker, raising=False)
    check_imports()
    file.touch()
    with pytest.raises(UsageError, match=f"{tmp_path}/pipeline.* hides the package pipeline"):
        check_imports()
