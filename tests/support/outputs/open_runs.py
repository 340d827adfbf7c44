"""Open runs without any computing: parts of given rows, and the files that they are merged to."""

import random
from collections.abc import Set
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract.manifest import Counts, Manifest
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import result_schema
from pipeline.output.merging.merge import merge
from pipeline.output.merging.tally import Tally
from pipeline.output.open_run import OpenRecord, OpenRun, Part, PartFooter
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store

SCHEMA = result_schema(labels=True, thresholds=True, embedding=pa.list_(pa.float16(), 4))
METADATA = {"cvt.run_id": "r", "cvt.model": "m ü", "cvt.fingerprint": "f"}


def result_rows(names: list[str], failed: Set[str] = frozenset()) -> pa.Table:
    rows = []
    for name in names:
        row: dict[str, Any] = {"uri": name, "source_version": "A", "size_bytes": 10}
        if name in failed:
            row |= {"status": "failed", "error_code": "corrupt", "error_message": "<b>"}
        else:
            row |= {
                "status": "ok", "width": 3, "height": 4, "sha256": "0" * 64,
                "label_id": 1, "label": "ü", "score": 0.5, "topk_ids": [1, 0],
                "topk_labels": ["ü", "cat"], "topk_scores": [0.5, 0.25], "labels": [],
                "embedding": [1, 2, 3, 4],
            }  # fmt: skip
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def commit(run: OpenRun, table: pa.Table, footer: PartFooter | None = None) -> None:
    name = run.part_name(len(run.parts))
    footer = footer or PartFooter()
    write_table(run.store, name, footer.attach(table))
    run.parts.append(Part(name, len(table), footer))


def names(count: int) -> list[str]:
    """Absolute, unsorted."""
    found = [f"/in/{n:04d}#%.jpg" for n in range(count)]
    random.Random(0).shuffle(found)
    return found


def open_run(store: Store, count: int = 10, rows_per_part: int = 4) -> OpenRun:
    run = OpenRun.begin(store, OpenRecord())
    uris = names(count)
    for start in range(0, count, rows_per_part):
        commit(run, result_rows(uris[start : start + rows_per_part], {uris[0]}))
    return run


def spread_run(store: Store, count: int, rows_per_part: int, overtaking: int) -> OpenRun:
    """Whose parts say where they lie: images overtook each other by so many places at most."""
    run = OpenRun.begin(store, OpenRecord())
    rng = random.Random(0)
    numbers = sorted(range(count), key=lambda number: number + rng.uniform(0, overtaking))
    for start in range(0, count, rows_per_part):
        uris = [f"/in/{number:06d}.jpg" for number in numbers[start : start + rows_per_part]]
        rows = result_rows(uris, {uris[0]})
        commit(run, rows, PartFooter().spanning(rows["uri"]))
    return run


def manifest_of(run: OpenRun, tally: Tally) -> Manifest:
    counts, files = Counts(listed=1), tuple(tally.files)
    return Manifest(run_id=run.run_id, files=files, counts=counts, identity=Identity(), spec={})


def staged(run: OpenRun) -> list[pa.Table]:
    files = run.store.list(f"{run.directory}/publish/data")
    return [pq.ParquetFile(run.store.path(name)).read() for name in files]


def merged_run(store: Store) -> tuple[OpenRun, Manifest]:
    """Three parts and three files; fewer where every step takes a request."""
    run = open_run(store, 10 if store.is_local else 5)
    return run, manifest_of(run, merge(run, METADATA, 4))


def finished_tree(store: Store, run_id: str) -> dict[str, bytes]:
    """The files of the output, the run's name and the place taken out."""

    def common(data: bytes) -> bytes:
        place = store.locate("").rstrip("/").encode()
        return data.replace(run_id.encode(), b"ID").replace(place, b"OUT")

    found = {name: store.read_bytes(name) for name in store.list("")}
    return {name.replace(run_id, "ID"): common(data) for name, data in found.items()}
