"""An interrupted ``--full`` is finished by any later run as it was begun."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, PolicySpec, RunSpec
from pipeline.model.arithmetic import Place
from pipeline.model.loaded import LoadedModel
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.runs.run import forecast
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images
from tests.support.inputs.world import Row, table_of
from tests.support.outputs.closed_runs import close_run, rows_of


@pytest.fixture(autouse=True)
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better than that of the closed run, which was in float32."""
    here = Place("CPU", frozenset({"float32", "bfloat16"}))
    monkeypatch.setattr("pipeline.runs.run.places", lambda compute, debug: [here])


def spec_of(root: Path, model: Path, **policy: Any) -> RunSpec:
    return RunSpec(
        inputs=InputSpec(uris=(str(root / "in"),)),
        model=ModelSpec(source=str(model)),
        output=OutputSpec(uri=str(root / "out"), top_k=5),
        policy=PolicySpec(**policy),
    )


def interrupted(root: Path, spec: RunSpec, *, full: bool, rows: int) -> None:
    """A closed run of another model, and a run of this one that has some rows."""
    store = Store(str(root / "out"))
    write_images(root / "in", 6)
    close_run(store, rows_of(np.array([[0.75, 0.25]], np.float32), ["a", "b"]), ["a", "b"])
    identity = LoadedModel.load(spec, "bfloat16").identity
    inputs = {"uris": [str(root / "in")], "format": "auto"}
    run = OpenRun.begin(store, OpenRecord(identity=identity, full=full, inputs=inputs))
    if rows:
        table: pa.Table = table_of([Row(f"{n}.jpg", "A") for n in range(rows)])
        write_table(store, run.part_name(0), PartFooter().attach(table))


@pytest.mark.parametrize("rows", [0, 2])
def test_without_saying_so_again(tmp_path: Path, checkpoint: Path, rows: int) -> None:
    spec = spec_of(tmp_path, checkpoint)
    interrupted(tmp_path, spec, full=True, rows=rows)
    assert forecast(spec).lines()


def test_a_run_that_was_no_full_one_stays_none(tmp_path: Path, checkpoint: Path) -> None:
    spec = spec_of(tmp_path, checkpoint)
    interrupted(tmp_path, spec, full=False, rows=2)
    with pytest.raises(UsageError, match="differs from the closed run"):
        forecast(spec)
