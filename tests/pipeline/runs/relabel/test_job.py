"""Relabelling again and again: what is new, what was interrupted, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.manifest import Counts
from pipeline.contract.schema import vanished_rows
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.output.publish import is_closed
from pipeline.runs.relabel.job import relabel
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.result import RunResult
from pipeline.storage.store import Store
from tests.support.models.linear_heads import linear, save_head
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import (
    CLASSES,
    EMBEDDED,
    MAP,
    identity,
    rows,
    softmax,
    spec,
    vectors,
)


def check_books(result: RunResult) -> None:
    counts = result.counts
    assert counts.listed == counts.ok + counts.failed + counts.skipped


class TestAgain:
    def test_only_new_and_changed_rows(self, source: Store, output: Store) -> None:
        failed = rows_of(softmax(0, 0), CLASSES, failures=["timeout"] * 4)
        close_run(source, rows_of(softmax(0, 40), CLASSES), CLASSES)
        close_run(source, failed, CLASSES)
        first = relabel(spec(source, output, label_map=MAP))
        assert first.counts == Counts(listed=44, ok=40, failed=4, skipped=0)
        nothing = relabel(spec(source, output, label_map=MAP))
        assert nothing.counts == Counts(listed=44, ok=0, failed=0, skipped=44)
        # One failure succeeds when tried again, one image has changed, three are new.
        tried = rows_of(softmax(1, 1), CLASSES)
        tried = tried.set_column(0, tried.schema.field(0), failed["uri"].slice(2, 1))
        changed = rows_of(softmax(2, 1), CLASSES)
        at = changed.schema.get_field_index("source_version")
        changed = changed.set_column(at, changed.schema.field(at), pa.array(["B"]))
        new = rows_of(softmax(3, 3), CLASSES, prefix="new")
        close_run(source, pa.concat_tables([tried, changed, new]), CLASSES)
        result = relabel(spec(source, output, label_map=MAP))
        assert result.counts == Counts(listed=47, ok=5, failed=0, skipped=42)
        live = LiveRows.of(History.load(output))
        after = {row["uri"]: row for table in live.batches(10) for row in table.to_pylist()}
        assert len(after) == 47
        assert after[failed["uri"][2].as_py()]["status"] == "ok"
        assert after[changed["uri"][0].as_py()]["source_version"] == "B"

    @pytest.mark.parametrize("full", [False, True])
    def test_what_vanished_from_the_source(self, source: Store, output: Store, full: bool) -> None:
        table = rows_of(softmax(0, 40), CLASSES)
        close_run(source, table, CLASSES)
        relabel(spec(source, output, label_map=MAP))
        gone = table["uri"].to_pylist()[:2]
        close_run(source, vanished_rows(gone, table.schema), CLASSES, expected=0)
        result = relabel(spec(source, output, label_map=MAP, full=full))
        check_books(result)
        assert (result.counts.listed, result.counts.ok) == (38, 38 if full else 0)
        assert result.manifest.vanished == tuple(gone)
        found = rows(output, result.manifest.run_id)
        assert [uri for uri, row in found.items() if row["status"] == "vanished"] == gone
        again = relabel(spec(source, output, label_map=MAP))
        assert again.manifest.vanished is None
        assert len(LiveRows.of(History.load(output))) == 38

    def test_everything_again_when_asked(self, source: Store, output: Store) -> None:
        close_run(source, rows_of(softmax(0, 40), CLASSES), CLASSES)
        relabel(spec(source, output, label_map=MAP))
        with pytest.raises(UsageError, match=r"fingerprint: .*policy\.full"):
            relabel(spec(source, output, label_map={"cat": "tiger"}))
        again = relabel(spec(source, output, label_map={"cat": "tiger"}, full=True))
        assert again.counts.ok == 40
        assert "tiger" in again.manifest.labels

    @pytest.mark.parametrize("after", [1, 2, 4, 5, 6])
    def test_interrupted_anywhere_it_is_finished_by_the_same_call(
        self, source: Store, output: Store, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close_run(source, rows_of(softmax(0, 200), CLASSES, failures=["corrupt"]), CLASSES)
        monkeypatch.setattr("pipeline.runs.relabel.rescore._MAX_CELLS", 1)
        write, calls = Store.write_bytes, iter(range(after + 1))

        def fail(self: Store, name: str, data: bytes) -> None:
            if self.uri == output.uri and next(calls) == after:
                raise OSError("disk full")
            write(self, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_bytes", fail)
            with pytest.raises(RunError, match="disk full; start the same command again"):
                relabel(spec(source, output, label_map=MAP))
        assert not output.list("data")
        result = relabel(spec(source, output, label_map=MAP))
        assert len(rows(output)) == 201
        assert result.counts == Counts(listed=201, ok=200, failed=1, skipped=0)
        assert not output.list("_open")

    def test_killed_while_publishing(
        self, source: Store, output: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close_run(source, rows_of(softmax(0, 20), CLASSES), CLASSES)

        def fail(self: Store, *names: object) -> None:
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "move", fail)
            with pytest.raises(RunError, match="killed"):
                relabel(spec(source, output, label_map=MAP))
        found = OpenRun.find(output)
        assert found is not None
        assert is_closed(found)
        result = relabel(spec(source, output, label_map=MAP))
        assert result.counts.skipped == 20
        runs = sorted({name.split("/")[1] for name in output.list("runs")})
        assert runs == sorted([found.run_id, result.run_id])
        assert len(rows(output)) == 20
        names = [name.split("/")[2] for name in output.list(f"runs/{found.run_id}")]
        assert names == [
            "classes.json", "manifest.json", "report.html", "review.html", "review.parquet",
        ]  # fmt: skip


class TestUsage:
    @pytest.mark.parametrize(
        ("what", "complaint"),
        [
            ({}, "nothing to do"),
            ({"label_map": {"unicorn": "cat"}}, "relabel.label_map names unknown classes: unicorn"),
            ({"thresholds": {"unicorn": 0.5}}, "output.thresholds names unknown classes"),
            (
                {"label_map": MAP, "thresholds": {"lynx": 0.5}},
                "output.thresholds names unknown classes",
            ),
            ({"top_k": 6}, "output.top_k is 6, but .* stores only 5 scores"),
            ({"top_k": 0}, "output.top_k is 0"),
            ({"head": "head.npz"}, "stores no embeddings, which relabel.head needs"),
            ({"label_map": MAP, "scores": "sigmoid"}, "output.scores needs relabel.head"),
        ],
    )
    def test_is_refused_before_anything_is_written(
        self,
        source: Store,
        output: Store,
        what: dict[str, Any],
        complaint: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        close_run(source, rows_of(softmax(0, 20), CLASSES), CLASSES)
        save_head(linear(), tmp_path, "npz")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=complaint):
            relabel(spec(source, output, **what))
        assert not output.list("")

    def test_the_output_itself(self, source: Store) -> None:
        with pytest.raises(UsageError, match="name another"):
            relabel(spec(source, Store(f"{source.uri}/"), label_map=MAP))

    def test_an_output_without_runs(self, source: Store, output: Store) -> None:
        with pytest.raises(UsageError, match="holds no closed run"):
            relabel(spec(source, output, label_map=MAP))

    def test_rows_of_two_models(self, source: Store, output: Store) -> None:
        for fingerprint in ("f00d", "beef"):
            close_run(source, rows_of(softmax(0, 9), CLASSES), CLASSES,
                      identity=identity(fingerprint=fingerprint))  # fmt: skip
        with pytest.raises(UsageError, match="relabelling needs the rows of one model"):
            relabel(spec(source, output, label_map=MAP))

    @pytest.mark.parametrize(
        ("stored", "width", "complaint"),
        [
            ({"pooling": "mean"}, 12, "these have mean"),
            ({"normalize": True}, 12, "normalize True"),
            ({}, 7, "takes embeddings of 7 dimensions; these have 12"),
        ],
    )
    def test_embeddings_that_a_head_does_not_take(
        self,
        source: Store,
        output: Store,
        stored: dict[str, Any],
        width: int,
        complaint: str,
        tmp_path: Path,
    ) -> None:
        head = save_head(linear(width=width), tmp_path / "head", "npz")
        table = rows_of(softmax(0, 5), CLASSES, embeddings=vectors(0, 5))
        close_run(source, table, CLASSES, identity=replace(EMBEDDED, **stored))
        with pytest.raises(UsageError, match=complaint):
            relabel(spec(source, output, head=str(head)))

    def test_an_unfinished_run_of_another_job(self, source: Store, output: Store) -> None:
        close_run(source, rows_of(softmax(0, 5), CLASSES), CLASSES)
        inputs = {"uris": ["s3://bucket"], "format": "auto"}
        OpenRun.begin(output, OpenRecord(inputs=inputs))
        with pytest.raises(UsageError, match="unfinished run of another job"):
            relabel(spec(source, output, label_map=MAP))
