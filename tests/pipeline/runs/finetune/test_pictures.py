"""Which pictures a model's page has, and which images are read again for them."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract.spec import FinetuneSpec, ModelSpec
from pipeline.model.families.registry import load_checkpoint
from pipeline.monitoring.review.queue import REVIEW
from pipeline.output.ledger.history import History
from pipeline.runs.finetune import pictures as module
from pipeline.runs.finetune.pictures import PageImages
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of

KEPT, FAR, DISK = "s3://bucket/kept.jpg", "s3://bucket/far.jpg", "/photos/near.jpg"
ANSWERS = [
    {"uri": uri, "split": "validation", "label": "ant", "predicted": "bee", "loss": loss}
    for uri, loss in ((KEPT, 3.0), (FAR, 2.0), (DISK, 1.0))
]
PREDICTIONS, NOTHING = pa.Table.from_pylist(ANSWERS), pa.table({"uri": pa.array([], pa.string())})


@pytest.fixture
def history(local_store: Store) -> History:
    """With the picture of one of the images in its queue."""
    rows = rows_of(np.array([[0.6, 0.4]], np.float32), ["ant", "bee"])
    run = close_run(local_store, rows, ["ant", "bee"])
    queue = [{"uri": KEPT, "reason": "random", "value": 0.1, "picture": b"kept"}]
    name = f"runs/{run.run_id}/review.parquet"
    write_table(local_store, name, pa.Table.from_pylist(queue, schema=REVIEW))
    return History.load(local_store)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read; each has a picture then."""
    found: list[str] = []

    def pictures(uris: Sequence[str], *_: object) -> dict[str, str]:
        found.extend(uris)
        return dict.fromkeys(uris, "read")

    monkeypatch.setattr(module, "pictures", pictures)
    return found


@pytest.mark.parametrize(
    ("number", "champion", "expected"),
    [
        (None, None, [DISK]),
        (None, "old", [FAR, DISK]),
        (2, None, [FAR]),
        (0, None, []),
        (0, "old", []),
    ],
)
def test_an_output_spares_its_bucket(
    history: History,
    read: list[str],
    checkpoint: Path,
    number: int | None,
    champion: str | None,
    expected: list[str],
) -> None:
    spec = FinetuneSpec(outputs=("out",), output="m", model="m", pictures=number, champion=champion)
    preprocessing = load_checkpoint(ModelSpec(source=str(checkpoint))).preprocessing
    found = PageImages(spec, preprocessing, [history]).shown(PREDICTIONS, NOTHING)
    assert read == expected
    kept = {KEPT: base64.b64encode(b"kept").decode()} if number != 0 else {}
    assert found == kept | dict.fromkeys(expected, "read")


def test_images_were_read_anyway(read: list[str], checkpoint: Path) -> None:
    """In turn one of each section, and none twice."""
    spec = FinetuneSpec(outputs=("in",), output="m", model="m", labels=("l.csv",))
    preprocessing = load_checkpoint(ModelSpec(source=str(checkpoint))).preprocessing
    issues = pa.table({"uri": [DISK, FAR]})
    assert set(PageImages(spec, preprocessing, []).shown(PREDICTIONS, issues)) == set(read)
    assert read == [KEPT, DISK, FAR]
