"""A relabelled table shows people the pictures that the queues of its runs have kept."""

import pyarrow as pa
import pytest

from pipeline.contract.schema import PICTURE
from pipeline.runs.relabel.job import relabel
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import CLASSES, MAP, rows, softmax, spec
from tests.support.pages.review import jpeg


def pictured(seed: int) -> pa.Table:
    """A night, every image of which has a picture of its own."""
    night = rows_of(softmax(seed, 100), CLASSES, prefix=f"night{seed}-")
    files = [jpeg(number) + f"{seed} {number}".encode() for number in range(100)]
    return night.append_column(PICTURE, pa.array(files, PICTURE.type))


def pictures(store: Store, run_id: str, reason: str) -> dict[str, bytes | None]:
    queue = read_table(store, f"runs/{run_id}/review.parquet").to_pylist()
    return {row["uri"]: row["picture"] for row in queue if row["reason"] == reason}


def test_the_sample_keeps_its_pictures(source: Store, output: Store) -> None:
    known: dict[str, bytes] = {}
    for seed in (0, 1):
        night = pictured(seed)
        known |= zip(night["uri"].to_pylist(), night[PICTURE.name].to_pylist(), strict=True)
        close_run(source, night, CLASSES, review=20)
    result = relabel(spec(source, output, label_map=MAP, review=20))
    sample = pictures(output, result.run_id, "random")
    assert len(sample) == 20
    assert {uri.split("/")[-1].split("-")[0] for uri in sample} == {"night0", "night1"}
    assert sample == {uri: known[uri] for uri in sample}
    others = pictures(output, result.run_id, "uncertain")
    assert all(picture in (None, known[uri]) for uri, picture in others.items())
    assert set(next(iter(rows(output).values()))) == set(
        rows_of(softmax(0, 1), CLASSES).schema.names
    )


def test_queues_that_are_gone_or_damaged_cost_no_more_than_pictures(
    source: Store, output: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (0, 1):
        close_run(source, pictured(seed), CLASSES)
    source.remove("runs/00000000/review.parquet")
    source.write_bytes("runs/00000001/review.parquet", b"PAR1")
    result = relabel(spec(source, output, label_map=MAP))
    assert result.counts.ok == 200
    assert set(pictures(output, result.run_id, "random").values()) == {None}
    assert "pictures are left out: " in caplog.text
