"""What closes a run, in memory and in the files of which another process publishes it."""

from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError
from pipeline.contract.manifest import Counts
from pipeline.output.open_run import OpenRun
from pipeline.output.publish import Beside, is_closed, publish, seal
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import finished_tree, merged_run


def test_what_closed_a_run_is_shown_as_it_was_written(local_store: Store) -> None:
    """By the process that wrote it, and by one that has only read it."""
    trees = []
    for remembers in (True, False):
        store = Store(f"{local_store.uri}/{remembers}")
        run, manifest = merged_run(store)
        beside: dict[str, Beside] = {
            layout.CLASSES: ["cat", "B\udcfccher"],
            layout.CHANGES: pa.table({"what": ["labels"]}),
            layout.REVIEW_PAGE: "<html>ü\udcfc",
        }
        sealed = seal(run, manifest, "<html>", beside)
        found = OpenRun.find(store)
        assert found is not None
        shown = publish(run, sealed=sealed) if remembers else publish(found)
        assert shown == manifest
        trees.append(finished_tree(store, run.run_id))
        assert {f"runs/ID/{name}" for name in beside} < trees[-1].keys()
    assert trees[0] == trees[1]


def test_a_manifest_that_nobody_could_read_closes_no_run(local_store: Store) -> None:
    run, manifest = merged_run(local_store)
    with pytest.raises(DamagedFileError, match="too large a number"):
        seal(run, replace(manifest, counts=Counts(listed=10**30)), "<html>")
    assert not is_closed(run)
