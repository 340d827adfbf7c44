"""The parts of a run become its files: planned here, merged one by one wherever there is room.

footers ──plan──► files ──merge_file──► a staged file; a tally, what a watch saw, hashes
                                                       └──── added up ────┘  └─ unique?
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline.contract import layout
from pipeline.output.merging.file import Job, Unwatched, Watch, merge_file
from pipeline.output.merging.plan import FilePlan, Spread, one_after_the_other, uri_at
from pipeline.output.merging.tally import Tally, count_repeated, repeated
from pipeline.output.merging.tasks import InThisProcess, Tasks
from pipeline.output.open_run import OpenRun, Part, PartFooter
from pipeline.output.staged import Uploads, withdraw
from pipeline.storage.parquet import read_columns, write_table
from pipeline.storage.read_ahead import together

TARGET_FILE_BYTES = 256 * 2**20
ROWS_OF_A_RANGE = 4_000_000
"""URIs that are compared with each other in one place."""
_VANISHED_ROWS = 16_384
"""Of a part."""
HERE = InThisProcess()


def merge(
    run: OpenRun,
    metadata: dict[str, str],
    rows_per_file: int | None,
    complete: Callable[[pa.Table], pa.Table] = lambda table: table,
    watch: Watch | None = None,
    vanished: pa.Table | None = None,
    tasks: Tasks = HERE,
) -> Tally:
    """Merge the parts of a run into files of even size, sorted by uri.

    Args:
        complete: sees every table before it is written, to fill in what was left for the end; it
            leaves the rows in their order.
        watch: sees the rows as they are written, but for those of vanished images; copies of it
            see those of one file each, and are included in it.
        vanished: the rows of images that are no longer there.
        tasks: where files are merged.
    """
    together(
        partial(run.store.clear, layout.publish_dir(run.run_id)),
        partial(withdraw, run.store, layout.data_dir(run.run_id)),
    )
    parts = [*run.parts, *_as_parts(run, vanished)]
    rows = sum(part.rows for part in parts)
    plans = _plans(run, parts, rows_per_file or _rows_per_file(run, rows), tasks)
    ranges = math.ceil(rows / ROWS_OF_A_RANGE)
    watch = watch or Unwatched()
    job = Job(run.store, run.run_id, run.record.attempt, metadata, complete, watch, ranges)
    pieces, found = tasks.exchange(partial(merge_file, job), plans, ranges, repeated)
    tally = Tally()
    for piece in pieces:
        tally.include(piece.tally)
        watch.include(piece.seen)
    if any(map(len, found)):
        tally.repeated = count_repeated(_uris(run, parts), np.concatenate(found))
    uploads = Uploads(dict(ChainMap(*(dict(piece.uploads) for piece in pieces))))
    if uploads.files:
        run.store.write_json(layout.publish_uploads(run.run_id), uploads.to_dict())
    return tally


def _uris(run: OpenRun, parts: Sequence[Part]) -> Iterator[pa.ChunkedArray]:
    names = [part.name for part in parts]
    return (table["uri"] for table in read_columns(run.store, names, ["uri"]))


def _as_parts(run: OpenRun, vanished: pa.Table | None) -> Iterator[Part]:
    """The rows of vanished images, written as parts that belong to no attempt."""
    ordered = vanished.sort_by("uri") if vanished is not None else pa.table({})
    for number, start in enumerate(range(0, ordered.num_rows, _VANISHED_ROWS)):
        rows = ordered.slice(start, _VANISHED_ROWS)
        name = layout.vanished_part(run.run_id, number)
        write_table(run.store, name, rows)
        yield Part(name, rows.num_rows, PartFooter().spanning(rows["uri"]))


def _plans(run: OpenRun, parts: Sequence[Part], size: int, tasks: Tasks) -> list[FilePlan]:
    spread = Spread.of(parts) if sum(part.rows for part in parts) > size else None
    cuts = spread.cuts(size) if spread else None
    if spread is None or cuts is None:
        return one_after_the_other(parts, size)
    return list(spread.files(tasks.map(partial(uri_at, store=run.store), cuts)))


def _rows_per_file(run: OpenRun, rows: int) -> int:
    """For files of even size, if all ``rows`` take as much room as those of the run's own parts;
    if there are several, none is below two thirds of the target."""
    sizes = run.store.list(layout.parts_dir(run.run_id)) if run.parts else {}
    stored = sum(sizes.get(part.name, 0) for part in run.parts)
    files = max(1, round(stored / TARGET_FILE_BYTES))
    return max(1, math.ceil(rows / files))
