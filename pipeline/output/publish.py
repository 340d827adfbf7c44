"""How a closed run becomes visible, by moves that can be repeated.

    _open/<id>/parts/*                 what the attempts committed
    _open/<id>/publish/data/<attempt>/part-*    merged, sorted by uri, sized for scans
    _open/<id>/publish/*               the report and the tables beside it
    _open/<id>/publish/manifest.json   with it the run is closed; only moving is left
    data/run=<id>/, runs/<id>/, images.sql, current.json, latest.json, in this order
    history/                          for the next run

Every step can be repeated. Whoever finds ``publish/manifest.json`` finishes the moving first. No
step asks a listing what there is: that of an object store may lag behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from types import MappingProxyType

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.manifest import Current, Latest, Manifest
from pipeline.contract.schema import Status
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRun
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store


def seal(
    run: OpenRun,
    manifest: Manifest,
    report: str,
    beside: Mapping[str, pa.Table | Sequence[str]] = MappingProxyType({}),
) -> None:
    """Write what goes beside the merged files; the manifest last, since it closes the run.

    Args:
        beside: further files by name; a table is written as Parquet, a list as JSON.
    """
    staged = layout.publish_dir(run.run_id)
    for name, value in beside.items():
        if isinstance(value, pa.Table):
            write_table(run.store, f"{staged}/{name}", value)
        else:
            run.store.write_json(f"{staged}/{name}", list(value))
    run.store.write_bytes(f"{staged}/{layout.REPORT}", report.encode("utf-8", "backslashreplace"))
    run.store.write_json(layout.publish_manifest(run.run_id), manifest.to_dict())


def view(store: Store) -> str:
    """SQL of DuckDB: the newest row of every image that is there."""
    files = store.locate(f"{layout.DATA}/**/*.parquet").replace("'", "''")
    return (
        "-- The newest row of every image that is there: duckdb -init images.sql\n"
        "CREATE OR REPLACE VIEW images AS\n"
        f"FROM read_parquet('{files}', hive_partitioning = true, union_by_name = true)\n"
        "QUALIFY row_number() OVER (PARTITION BY uri ORDER BY run DESC) = 1\n"
        f"AND status <> '{Status.VANISHED.value}';\n"
    )


def is_closed(run: OpenRun) -> bool:
    """Whether only the moving is left to do."""
    return run.store.exists(layout.publish_manifest(run.run_id))


def _merged_dir(run: OpenRun, files: Set[str]) -> str:
    """Where the closing attempt merged the files. Earlier versions gave it no directory of its own,
    and may have been killed before they moved them."""
    common = layout.publish_data_dir(run.run_id, "")
    is_old = not files.isdisjoint(run.store.children(common))
    return common if is_old else layout.publish_data_dir(run.run_id, run.record.attempt)


def publish(run: OpenRun) -> Manifest:
    """Make a closed run visible, ``latest.json`` last, and return its manifest. Safe to repeat."""
    store, run_id = run.store, run.run_id
    staged, target = layout.publish_dir(run_id), layout.run_dir(run_id)
    written = store.read_bytes(layout.publish_manifest(run_id))
    manifest = Manifest.from_json(written, store.locate(layout.publish_manifest(run_id)))
    if manifest.files:
        files = [name.rpartition("/")[2] for name in manifest.file_names]
        store.move(_merged_dir(run, set(files)), layout.data_dir(run_id), files)
    for name in layout.BESIDE:
        with suppress(FileNotFoundError):
            store.write_bytes(f"{target}/{name}", store.read_bytes(f"{staged}/{name}"))
    store.write_bytes(layout.manifest_file(run_id), written)
    if manifest.files:
        store.write_bytes(layout.VIEW, view(store).encode("utf-8", "backslashreplace"))
    history = History.ending_with(store, manifest)
    store.write_json(layout.CURRENT, Current(run_id, tuple(history.files)).to_dict())
    latest = Latest(run_id, layout.manifest_file(run_id), manifest.counts)
    store.write_json(layout.LATEST, latest.to_dict())
    history.keep()
    run.discard()
    return manifest
