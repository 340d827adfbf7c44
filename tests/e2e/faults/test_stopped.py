"""A run that is stopped leaves a Ray that was there before it as it found it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline.contract.errors import RunError
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.runs.run import run
from tests.support.inputs.images import write_images
from tests.support.processes import victims
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket


class Holder(ExecutionCallback):
    """Refers to executions, as does what waits for Python's garbage collection."""

    held: ClassVar[list[Any]] = []

    def before_execution_starts(self, executor: Any) -> None:
        self.held.append(executor)


@pytest.fixture
def holder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Holder]]:
    context = DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [Holder])
    yield Holder
    Holder.held.clear()


@pytest.mark.usefixtures("ray_local")
def test_actors_end_with_a_run_that_stopped(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    holder: type[Holder],
) -> None:
    s3_bucket.put_tree(write_images(tmp_path / "in", 30)[0].parent)
    fault_proxy.faults = Faults(credentials_code="ExpiredToken", good_gets=10)
    spec = RunSpec(
        inputs=InputSpec(uris=(s3_bucket.uri,)),
        model=ModelSpec(source=str(checkpoint)),
        output=OutputSpec(uri=str(tmp_path / "out"), embeddings=True),
    )
    before = ray.available_resources()["CPU"]
    with pytest.raises(RunError, match="ExpiredToken") as stopped:
        run(spec)
    victims.wait_until(lambda: ray.available_resources().get("CPU") == before, "free CPUs")
    assert len(holder.held) == 1
    assert not ray.util.list_named_actors()
    assert stopped.value.__cause__ is not None  # whoever keeps the error keeps no actor
