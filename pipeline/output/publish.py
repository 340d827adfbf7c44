"""A closed run becomes visible, by moves that can be repeated.

    _open/<id>/parts/*                 what the attempts committed
    _open/<id>/publish/data/part-*     merged, sorted by uri, sized for scans
    _open/<id>/publish/*               the report and the tables beside it
    _open/<id>/publish/manifest.json   from here on the run is closed; what follows is only moving
    data/run=<id>/, runs/<id>/, latest.json, in this order

Every step can be repeated. Whoever finds ``publish/manifest.json`` finishes the moving first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.contract import layout
from pipeline.output.open_run import OpenRun
from pipeline.storage.parquet import write_table


def close(
    run: OpenRun,
    manifest: dict[str, Any],
    report: str,
    beside: Mapping[str, pa.Table | list[str]] | None = None,
) -> None:
    """Write the manifest, the report and whatever goes ``beside`` them, by name (a table as
    Parquet, a list as JSON), next to the merged files; then publish."""
    staged = layout.publish_dir(run.run_id)
    for name, value in (beside or {}).items():
        if isinstance(value, pa.Table):
            write_table(run.store, f"{staged}/{name}", value)
        else:
            run.store.write_json(f"{staged}/{name}", value)
    run.store.write_bytes(f"{staged}/{layout.REPORT}", report.encode())
    run.store.write_json(layout.publish_manifest(run.run_id), manifest)
    publish(run)


def is_closed(run: OpenRun) -> bool:
    """Whether all that is left to do is the moving."""
    return run.store.exists(layout.publish_manifest(run.run_id))


def publish(run: OpenRun) -> dict[str, Any]:
    """Make a closed run visible; ``latest.json`` moves last. Safe to repeat. Its manifest."""
    store, run_id = run.store, run.run_id
    staged, target = layout.publish_dir(run_id), layout.run_dir(run_id)
    manifest: dict[str, Any] = store.read_json(layout.publish_manifest(run.run_id))
    if manifest["files"]:
        store.move(layout.publish_data_dir(run_id), layout.data_dir(run_id))
    for path in store.list(staged):
        name = path.removeprefix(f"{staged}/")
        if "/" not in name and name != layout.MANIFEST:
            store.write_bytes(f"{target}/{name}", store.read_bytes(path))
    store.write_json(layout.manifest_file(run_id), manifest)
    latest = {"run_id": run_id, "manifest": layout.manifest_file(run_id)}
    store.write_json(layout.LATEST, latest | {"counts": manifest["counts"]})
    run.discard()
    return manifest
