"""The part of an INPUT that is measured, as work for the stages, as a smaller run, or as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import WORK
from pipeline.contract.spec import InputSpec, RunSpec
from pipeline.plan.diff import IMAGES_OF_A_SHARD, Work
from pipeline.sources.formats.registry import format_of_kind, is_shard
from pipeline.sources.inventory import inventory
from pipeline.storage.files import read_bytes


def work_of(inputs: InputSpec, images: int | None, at_least: int = 0) -> Work:
    """The first ``images`` objects of an INPUT (None: all), repeated until there are ``at_least``,
    since a stage must be timed for long enough."""
    tables = []
    left = images
    for table in inventory(inputs):
        tables.append(table if left is None else table.slice(0, left))
        if left is not None:
            left -= tables[-1].num_rows
            if left <= 0:
                break
    rows = pa.concat_tables(tables)
    work = rows.append_column(WORK.field("_done"), pa.nulls(len(rows), WORK.field("_done").type))
    times = max(-(-at_least // len(work)), 1)
    work = pa.concat_tables([work] * times)
    of_shards = is_shard(work["kind"])
    parts = work.filter(pc.invert(of_shards)), work.filter(of_shards)
    images_work, shards = ((part,) if part.num_rows else () for part in parts)
    return Work(images_work, shards)


def sample(spec: RunSpec, images: int, scratch: Path) -> RunSpec:
    """The same run over the first images of its INPUT, or over shards that hold about as many."""
    uris: list[str] = []
    for listed in inventory(spec.inputs):
        if pc.any(is_shard(listed["kind"])).as_py():
            shards = tuple(listed["uri"].to_pylist()[: max(images // IMAGES_OF_A_SHARD, 1)])
            return replace(spec, inputs=replace(spec.inputs, uris=shards))
        uris += listed["uri"].to_pylist()
        if len(uris) >= images:
            break
    names = scratch / "images.txt"
    names.write_text("\n".join(uris[:images]) + "\n")
    return replace(spec, inputs=replace(spec.inputs, uris=(str(names),), format="list"))


def copy_images(inputs: InputSpec, number: int, directory: Path) -> Path:
    """The first images of an INPUT as local files, named after their position.

    Raises:
        UsageError: the INPUT holds shards or tables.
    """
    directory.mkdir()
    index = 0
    for table in inventory(inputs):
        for uri, kind in zip(table["uri"].to_pylist(), table["kind"].to_pylist(), strict=True):
            if format_of_kind(kind).is_shard:
                raise UsageError(f"--peers reads only single files; {uri} is a shard or a table")
            suffix = PurePosixPath(uri).suffix.lower() or ".jpg"
            (directory / f"{index:06d}{suffix}").write_bytes(read_bytes(uri))
            index += 1
            if index == number:
                return directory
    return directory
