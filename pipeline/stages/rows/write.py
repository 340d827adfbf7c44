"""The sink: commits result rows to the open run, a part at a time."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data._internal.execution.interfaces import TaskContext
from ray.data.datasource.datasink import WriteResult

from pipeline.contract.schema import PICTURE, SHADOW, Status, published
from pipeline.monitoring.review.pictures import pictures_for
from pipeline.monitoring.review.queue import ReviewQueue
from pipeline.output.open_run import Committed, Deferred, OpenRun, Part, PartFooter, Thumbnail
from pipeline.stages.watching.reach import reaching
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.parquet import write_table


class PartSink(Datasink[Committed]):
    """Writes one part per write task and tells the driver what it committed."""

    def __init__(
        self,
        run: OpenRun,
        wave: int,
        rows_per_part: int,
        environment: WorkerEnvironment,
        review: ReviewQueue | None = None,
    ) -> None:
        self.run = run
        self.wave = wave
        self.rows_per_part = rows_per_part
        self.environment = environment
        self.review = review
        self.committed = Committed()

    @property
    def min_rows_per_write(self) -> int:
        """Rows that a crash can cost for every part being filled."""
        return self.rows_per_part

    def write(self, blocks: Iterable[pa.Table], ctx: TaskContext) -> Committed:
        """Commit the blocks as one part; Ray's ``task_idx`` is the same in every retry."""
        self.environment.apply()
        tables = [block for block in blocks if block.num_rows]
        if not tables:
            return Committed()
        rows = pa.concat_tables(tables)
        is_deferred = pc.equal(rows["status"], Status.DEFERRED.value)
        deferred = _deferred(rows.filter(is_deferred))
        table = rows.filter(pc.invert(is_deferred))
        if not table.num_rows:
            return Committed(deferred=deferred)
        footer = _footer(table)
        name = self.run.part_name(ctx.task_idx, self.wave)
        with reaching(self.run.store.uri):
            write_table(self.run.store, name, footer.attach(self._kept(table)))
        return Committed((Part(name, table.num_rows, footer),), deferred)

    def _kept(self, table: pa.Table) -> pa.Table:
        """What a part has of the rows: what is published, what a second model says, and the
        pictures of those that may still be shown to a person."""
        rows = published(table)
        if SHADOW.name in table.column_names:
            rows = rows.append_column(SHADOW, table[SHADOW.name])
        if self.review is not None and PICTURE.name in table.column_names:
            rows = rows.append_column(PICTURE, pictures_for(self.review, table))
        return rows

    def on_write_complete(self, write_result: WriteResult[Committed]) -> None:
        """On the driver: keep what was committed; from now on it belongs to the run."""
        self.committed = sum(write_result.write_returns, Committed())


def _deferred(rows: pa.Table) -> Deferred:
    shards = rows["_shard"].drop_null().to_pylist()
    return Deferred(rows.num_rows - len(shards), frozenset(shards))


def _footer(table: pa.Table) -> PartFooter:
    last = table.filter(pc.is_valid(table["_shard_rows"]))
    shards = zip(last["_shard"].to_pylist(), last["_shard_rows"].to_pylist(), strict=True)
    sampled = table.filter(pc.is_valid(table["_thumbnail"]))
    captions = sampled["label"] if "label" in table.column_names else pa.nulls(len(sampled))
    thumbnails = [
        Thumbnail(uri, label, base64.b64encode(jpeg).decode())
        for uri, label, jpeg in zip(
            sampled["uri"].to_pylist(),
            captions.to_pylist(),
            sampled["_thumbnail"].to_pylist(),
            strict=True,
        )
    ]
    footer = PartFooter(shards=dict(shards), thumbnails=tuple(thumbnails))
    return footer.spanning(table["uri"])
