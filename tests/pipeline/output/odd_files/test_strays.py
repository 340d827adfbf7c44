"""What desktops, file servers and people leave below an output disturbs nobody."""

import os

import pytest

from pipeline.contract import layout
from pipeline.output.lease import Lease
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import merge
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.output.publish import publish, seal
from pipeline.storage.store import Store
from tests.support.inputs.world import SHARD_NAMES
from tests.support.outputs.open_runs import METADATA, manifest_of, open_run

STRAYS = (
    ".DS_Store", "Thumbs.db", "desktop.ini", "lost+found/x", "._part-00000.parquet", ".gitkeep",
    ".nfs000000000012", ".snapshot/hourly.0/manifest.json", "@eaDir/x@SynoEAStream", "README",
    "20260101T000000Z-1 (1)/manifest.json", "20260101T000000Z-0000000", "manifest.json.swp",
    "old/manifest.json", "conflicted copy.parquet",
)  # fmt: skip
PLACES = (
    "", "runs", "_open", "data", "_open/ID", "_open/ID/parts", "_open/ID/publish",
    "_open/ID/publish/data", "runs/ID", "data/run=ID",
)  # fmt: skip
AN_ID = "20250101T000000Z-0000000"


def litter(store: Store, place: str, run_id: str) -> None:
    for stray in STRAYS:
        store.write_bytes(f"{place.replace('ID', run_id)}/{stray}".lstrip("/"), b"\0\0\0\1Bud1")


@pytest.mark.parametrize("place", PLACES)
def test_strays_disturb_no_run_at_any_time(local_store: Store, place: str) -> None:
    """Before a run, while it is open, while it is published, and after it."""
    store = local_store
    litter(store, place, AN_ID)
    assert OpenRun.find(store) is None
    assert not History.load(store).runs
    with Lease(store) as lease:
        run = open_run(store)
        litter(store, place, run.run_id)
        found = OpenRun.find(store)
        assert found is not None
        assert [part.name for part in found.parts] == [part.name for part in run.parts]
        manifest = manifest_of(found, merge(found, METADATA, None))
        litter(store, place, run.run_id)
        seal(found, manifest, "<html>")
        litter(store, place, run.run_id)
        lease.check()
        publish(found)
    litter(store, place, run.run_id)
    assert OpenRun.find(store) is None
    (closed,) = History.load(store).runs
    assert closed.run_id == run.run_id
    assert len(History.load(store).ledger(SHARD_NAMES)) == 10
    following = OpenRun.begin(store, OpenRecord())
    assert following.run_id > run.run_id


def test_strays_are_not_published(store: Store) -> None:
    run = open_run(store)
    manifest = manifest_of(run, merge(run, METADATA, None))
    litter(store, layout.publish_dir(run.run_id), run.run_id)
    seal(run, manifest, "<html>")
    publish(run)
    published = {name.rpartition("/")[2] for name in store.list(layout.run_dir(run.run_id))}
    assert not published & {".DS_Store", "Thumbs.db", "desktop.ini", ".nfs000000000012"}
    assert {layout.MANIFEST, layout.REPORT} <= published


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_stray_that_may_not_be_read(local_store: Store) -> None:
    litter(local_store, layout.RUNS, AN_ID)
    os.chmod(local_store.path(f"{layout.RUNS}/lost+found"), 0)
    assert not History.load(local_store).runs
