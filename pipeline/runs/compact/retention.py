"""Runs that were replaced, and how long they stay for those who still read them."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.contract import layout
from pipeline.contract.manifest import Manifest
from pipeline.storage.store import Store

DAY_SECONDS = 86_400


def remove_replaced(store: Store, days: float) -> list[str]:
    """Remove the runs that were replaced more than so many days ago, the oldest first; to be called
    by whoever holds the lease.

    A reader of all files takes the newest row of an image, which stays until older ones are gone.
    Of a run, the rows go first: as long as there is its manifest, another call finds it.

    Returns:
        Their IDs.
    """
    run_ids = list(filter(layout.is_run_id, store.children(layout.RUNS)))
    last = _replaced_all_before(store, run_ids, days)
    gone = [run_id for run_id in run_ids if last is not None and run_id < last]
    for run_id in gone:
        store.remove(layout.data_dir(run_id))
        store.remove(layout.run_dir(run_id))
    return gone


def _replaced_all_before(store: Store, run_ids: list[str], days: float) -> str | None:
    """The newest run that closed so long ago and replaced all before it."""
    for run_id in reversed(run_ids):
        manifest = store.read_record(Manifest, layout.manifest_file(run_id))
        if manifest and manifest.is_full and _age(manifest) > days * DAY_SECONDS:
            return run_id
    return None


def _age(run: Manifest) -> float:
    """Seconds since it closed; 0 if it does not say when, so that nothing is removed for it."""
    try:
        finished = datetime.fromisoformat(run.finished)
    except ValueError:
        return 0.0
    return (datetime.now(UTC) - finished).total_seconds() if finished.tzinfo else 0.0
