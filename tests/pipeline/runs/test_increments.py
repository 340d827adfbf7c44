"""Night after night: forecasts, deadlines, copies of known content, requests that are not made."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.contract.errors import JobError, UsageError
from pipeline.contract.manifest import Counts, DeferredCounts
from pipeline.contract.schema import Status
from pipeline.contract.spec import (
    ComputeSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.output.ledger.history import History
from pipeline.plan.reuse import Contents
from pipeline.runs.run import forecast, run
from pipeline.storage.parquet import read_table, write_table
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images
from tests.support.inputs.tars import tar_bytes
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of
from tests.support.outputs.found import published_rows
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import Bucket

Night = Callable[..., RunSpec]


@pytest.fixture
def night(tmp_path: Path, checkpoint: Path) -> Night:
    """The spec of a run from in/ to out/, under some policy."""
    write_images(tmp_path / "in", 30)

    def spec(**policy: Any) -> RunSpec:
        return RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "in"),)),
            model=ModelSpec(source=str(checkpoint)),
            output=OutputSpec(uri=str(tmp_path / "out"), top_k=2, embeddings=True),
            compute=ComputeSpec(num_actors=1),
            policy=PolicySpec(**policy),
        )

    return spec


def tree(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


@pytest.mark.usefixtures("ray_local")
def test_time_is_up_and_the_next_night_goes_on(tmp_path: Path, night: Night) -> None:
    with tarfile.open(tmp_path / "in" / "s.tar", "w") as tar:
        tar.add(tmp_path / "in" / "0000.jpg", "a.jpg")
    first = run(night(max_seconds=0))
    assert first.counts == Counts(listed=0, ok=0, failed=0, skipped=0)
    assert first.manifest.deferred == DeferredCounts(images=30, shards=1)
    assert first.exit_code == 0
    assert not (tmp_path / "out" / "data").exists()

    second = run(night())
    assert second.counts == Counts(listed=31, ok=31, failed=0, skipped=0)
    assert second.manifest.deferred == DeferredCounts(images=0, shards=0)
    assert len(published_rows(tmp_path / "out")) == 31


@pytest.mark.usefixtures("ray_local")
def test_a_shard_that_was_repaired_and_one_that_became_smaller(
    tmp_path: Path, checkpoint: Path
) -> None:
    images = {path.name: path.read_bytes() for path in write_images(tmp_path / "raw", 6)}
    whole, shards = tar_bytes(images), tmp_path / "in"
    shards.mkdir()
    spec = RunSpec(
        inputs=InputSpec(uris=(str(shards),)),
        model=ModelSpec(source=str(checkpoint)),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=2),
        compute=ComputeSpec(num_actors=1),
    )
    (shards / "a.tar").write_bytes(whole[: len(whole) // 2])
    (shards / "b.tar").write_bytes(whole)
    first = run(spec)
    assert first.manifest.failures == {"shard_truncated": 1}

    (shards / "a.tar").write_bytes(whole)
    (shards / "b.tar").write_bytes(tar_bytes(dict(list(images.items())[:4])))
    second = run(spec)
    assert second.counts == Counts(listed=10, ok=10, failed=0, skipped=0)
    gone = (str(shards / "a.tar"), *(f"{shards}/b.tar#{n:04d}.jpg" for n in (4, 5)))
    assert second.manifest.vanished == gone
    assert second.manifest.plan["vanished"] == 3

    plan = forecast(spec).plan
    assert plan.is_empty
    assert (plan.counts.unchanged, plan.counts.failed_before, plan.counts.vanished) == (10, {}, 0)


@pytest.mark.usefixtures("ray_local")
def test_known_content_under_a_new_name_is_copied(tmp_path: Path, night: Night) -> None:
    run(night())
    shutil.copy(tmp_path / "in" / "0007.jpg", tmp_path / "in" / "moved.jpg")
    write_images(tmp_path / "more", 1, seed=9)[0].rename(tmp_path / "in" / "new.jpg")
    (tmp_path / "in" / "0003.jpg").unlink()

    plan = forecast(night())
    before = tree(tmp_path / "out")
    assert (plan.plan.counts.new, plan.plan.counts.unchanged) == (2, 29)
    assert plan.plan.counts.vanished == 1
    assert "           2  new" in plan.lines()
    assert tree(tmp_path / "out") == before, "a forecast writes nothing"

    result = run(night(reuse_content=True))
    assert result.counts == Counts(listed=31, ok=2, failed=0, skipped=29)
    assert result.manifest.vanished == (str(tmp_path / "in" / "0003.jpg"),)
    rows = {str(row["uri"]): row for row in published_rows(tmp_path / "out")}
    copy, source = (rows[str(tmp_path / "in" / name)] for name in ("moved.jpg", "0007.jpg"))
    own = ("uri", "source_version")
    assert {k: v for k, v in copy.items() if k not in own} == {
        k: v for k, v in source.items() if k not in own
    }
    assert copy["source_version"] != source["source_version"]
    # The other new image was computed, the copy was not decoded.
    assert rows[str(tmp_path / "in" / "new.jpg")]["embedding"] != source["embedding"]


@pytest.mark.usefixtures("ray_local")
def test_a_vanished_image_has_a_row_until_it_comes_back(tmp_path: Path, night: Night) -> None:
    first, second = (tmp_path / "in" / name for name in ("0003.jpg", "0004.jpg"))
    run(night())
    saved = {path: path.read_bytes() for path in (first, second)}
    for path in saved:
        path.unlink()

    def statuses() -> list[tuple[str, str]]:
        """Of the two, in all runs."""
        rows = ((Path(str(row["uri"])), row) for row in published_rows(tmp_path / "out"))
        return [(path.name, str(row["status"])) for path, row in rows if path in saved]

    gone = run(night())
    assert gone.counts == Counts(listed=28, ok=0, failed=0, skipped=28)
    assert gone.manifest.vanished == (str(first), str(second))
    assert run(night()).manifest.vanished == (), "it is said once"
    first.write_bytes(saved[first])
    assert run(night()).counts == Counts(listed=29, ok=1, failed=0, skipped=28)
    second.write_bytes(saved[second])
    first.unlink()
    full = run(night(full=True))
    assert full.counts == Counts(listed=29, ok=29, failed=0, skipped=0)
    assert full.manifest.vanished == (str(first),)
    assert sorted(statuses()) == sorted(
        [
            *[("0003.jpg", status) for status in ("ok", "vanished", "ok", "vanished")],
            *[("0004.jpg", status) for status in ("ok", "vanished", "ok")],
        ]
    )


@pytest.mark.usefixtures("ray_local")
def test_a_night_without_news_reads_no_image(
    tmp_path: Path, night: Night, s3_bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    s3_bucket.put_tree(tmp_path / "in", "photos/")
    spec = night()
    spec = replace(spec, inputs=InputSpec(uris=(f"{s3_bucket.uri}/photos",)))
    assert run(spec).counts.ok == 30
    gets = fault_proxy.count("GET", path=".*/photos/.+")
    assert gets == 30

    before = fault_proxy.count()
    again = run(spec)
    assert again.counts == Counts(listed=30, ok=0, failed=0, skipped=30)
    assert fault_proxy.count("GET", path=".*/photos/.+") == gets
    assert fault_proxy.count() - before <= 3, "a page of the listing, and what finds its bucket"

    forecast(spec)
    assert fault_proxy.count("GET", path=".*/photos/.+") == gets


CLASSES = ["cat", "dog"]
SCORES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)


def contents(store: Store, *lacking: str) -> Contents:
    """Of two runs, of which the files of the older lack some columns."""
    manifest = close_run(store, rows_of(SCORES, CLASSES), CLASSES)
    for name in manifest.file_names:
        write_table(store, name, read_table(store, name).drop_columns(list(lacking)))
    close_run(store, rows_of(SCORES, CLASSES, prefix="other"), CLASSES)
    return Contents(History.load(store), IDENTITY)


def marked(*hashes: str) -> pa.Table:
    """Rows of a new run that are to be copied."""
    rows = [{"uri": f"new/{sha}", "sha256": sha, "status": Status.COPIED.value} for sha in hashes]
    return pa.Table.from_pylist(rows, rows_of(SCORES, CLASSES).schema)


@pytest.mark.parametrize("lacking", [(), ("width",), ("width", "topk_scores", "error_message")])
def test_what_an_earlier_file_lacks_is_null(local_store: Store, lacking: tuple[str, ...]) -> None:
    known = contents(local_store, *lacking)
    filled = known.fill(marked("image1", "other1"))
    assert filled["uri"].to_pylist() == ["new/image1", "new/other1"]
    assert filled["status"].to_pylist() == ["ok", "ok"]
    assert filled["label"].to_pylist() == ["dog", "dog"]
    for name in ("topk_scores", "label_id"):
        old, new = filled[name].to_pylist()
        assert new is not None
        assert old == (None if name in lacking else new)


@pytest.mark.usefixtures("ray_local")
class TestTrial:
    """A run over a part of the files, and the runs after it."""

    def test_the_next_run_does_the_rest(self, tmp_path: Path, night: Night) -> None:
        def books(**policy: Any) -> tuple[int, int, int]:
            counts = run(night(**policy)).counts
            return counts.listed, counts.ok, counts.skipped

        assert books(limit=3) == (3, 3, 0)
        assert books(limit=3) == (3, 0, 3)
        gone, *rest = sorted((tmp_path / "in").iterdir())
        gone.unlink()
        assert forecast(night(sample="99%")).plan.counts.vanished == 0
        assert books(limit=4) == (4, 2, 2)
        assert {row["status"] for row in published_rows(tmp_path / "out")} == {"ok"}

        assert books() == (29, 25, 4)
        rows = published_rows(tmp_path / "out")
        done = sorted(str(row["uri"]) for row in rows if row["status"] == "ok")
        assert done == sorted(map(str, (gone, *rest)))
        assert [row["uri"] for row in rows if row["status"] == "vanished"] == [str(gone)]

    def test_one_that_is_open_is_finished_by_the_same_command(
        self, night: Night, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.runs.run.PlannedRun.close", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(night(limit=2))
        with pytest.raises(UsageError, match="limit"):
            run(night())
        counts = run(night(limit=2)).counts
        assert (counts.listed, counts.ok) == (2, 2)


def test_a_plan_for_an_output_that_is_out_of_reach_says_so(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(store: Store, *, for_rows: bool) -> None:
        raise EndpointConnectionError(endpoint_url="https://bucket.example")

    monkeypatch.setattr(History, "load", unreachable)
    with pytest.raises(JobError, match=r"cannot use output.uri \S+/out: Could not connect to"):
        forecast(night())
