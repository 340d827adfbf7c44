"""Object stores whose listings lag behind: no row is lost, and none is published twice."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.contract import layout
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import merge
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.output.publish import is_closed, publish, seal
from pipeline.runs.run import _found
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import METADATA, manifest_of, names, open_run

See = Callable[[set[str]], set[str]]


class Listings:
    """What the listings of a store show, given the names that are there."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self.see: See = lambda there: there
        fs = store.fs
        self.fs = fs
        patch.setattr(fs, "find", self._find)
        patch.setattr(fs, "ls", self._ls)

    def _shown(self, path: str) -> list[str]:
        prefix = "/" + path.strip("/") + "/"
        return sorted(name for name in self.see(set(self.fs.store)) if name.startswith(prefix))

    def _find(self, path: str, **options: Any) -> dict[str, dict[str, Any]]:
        shown = self._shown(path)
        return {name: {"name": name, "type": "file", "size": 1} for name in shown}

    def _ls(self, path: str, **options: Any) -> list[str]:
        start = len("/" + path.strip("/") + "/")
        return sorted({name[:start] + name[start:].split("/")[0] for name in self._shown(path)})

    def forget(self) -> None:
        """From now on show nothing at all."""
        self.see = lambda there: set()

    def catch_up(self) -> None:
        """From now on show what is there."""
        self.see = lambda there: there


@pytest.fixture
def remote() -> Store:
    """Objects in memory; none is renamed, as in any object store."""
    return Store(f"memory://{secrets.token_hex(4)}/out")


@pytest.fixture
def listings(remote: Store, monkeypatch: pytest.MonkeyPatch) -> Listings:
    return Listings(remote, monkeypatch)


def closed(run: OpenRun) -> list[str]:
    """Close a run; the names of its files."""
    manifest = manifest_of(run, merge(run, METADATA, 4))
    seal(run, manifest, "<html>")
    return publish(run).file_names


def check_published(store: Store, files: list[str]) -> None:
    """Every row once, in the files that the manifest names, and nothing else."""
    assert list(store.list("data")) == files
    uris = [uri for name in files for uri in read_table(store, name)["uri"].to_pylist()]
    assert sorted(uris) == sorted(names(10))
    assert OpenRun.find(store) is None
    assert store.exists(layout.report_file(History.load(store).runs[0].run_id))


def test_nothing_new_is_shown(remote: Store, listings: Listings) -> None:
    listings.forget()
    files = closed(open_run(remote))
    assert len(files) == 3
    assert [run.file_names for run in History.load(remote).runs] == [files], "latest.json tells"
    listings.catch_up()
    check_published(remote, files)


def test_what_is_gone_is_shown(remote: Store, listings: Listings) -> None:
    run = open_run(remote)
    places = (
        run.directory,
        f"{run.directory}/parts",
        layout.publish_data_dir(run.run_id, run.attempt),
    )
    ghosts = {
        remote.path(f"{place}/{name}")
        for place in places
        for name in ("open.json", "0-000-000000.parquet", layout.data_file(0), layout.data_file(9))
    }
    listings.see = lambda there: there | ghosts
    files = closed(run)
    assert OpenRun.find(remote) is None
    listings.catch_up()
    check_published(remote, files)


def test_a_publication_that_broke_off_goes_on_without_a_listing(
    remote: Store, listings: Listings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(remote)
    manifest = manifest_of(run, merge(run, METADATA, 4))
    seal(run, manifest, "<html>")
    remove = MemoryFileSystem.rm_file

    def die(fs: MemoryFileSystem, path: str) -> None:
        if "part-00001" in path:
            raise OSError("killed")
        remove(fs, path)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "rm_file", die)
        with pytest.raises(OSError, match="killed"):
            publish(run)
    found = OpenRun.find(remote)
    assert found is not None
    assert is_closed(found)
    listings.forget()
    publish(found)
    listings.catch_up()
    check_published(remote, manifest.file_names)


def test_rows_that_cannot_be_found_are_not_removed(remote: Store, listings: Listings) -> None:
    run = open_run(remote)
    seal(run, manifest_of(run, merge(run, METADATA, 4)), "<html>")
    lost = f"{layout.publish_data_dir(run.run_id, run.attempt)}/{layout.data_file(1)}"
    kept = remote.read_bytes(lost)
    remote.remove_file(lost)
    with pytest.raises(FileNotFoundError):
        publish(run)
    remote.write_bytes(lost, kept)
    check_published(remote, publish(run).file_names)


def test_what_an_earlier_attempt_merged_is_not_published(remote: Store, listings: Listings) -> None:
    run = open_run(remote)
    merge(run, METADATA, 1)  # ten files, of which the next attempt sees none
    listings.forget()
    manifest = manifest_of(run, merge(run, METADATA, 4))
    listings.catch_up()
    seal(run, manifest, "<html>")
    check_published(remote, publish(run).file_names)


def test_a_part_that_is_listed_and_gone_is_computed_again(
    remote: Store, listings: Listings, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(remote)
    remote.remove_file(run.parts[0].name)
    gone = remote.path(run.parts[0].name)
    listings.see = lambda there: there | {gone}
    found = OpenRun.find(remote)
    assert found is not None
    assert [part.name for part in found.parts] == [part.name for part in run.parts[1:]]
    assert "computing the rows of" in caplog.text


def test_a_part_that_is_there_and_not_listed_stays_out_for_good(
    remote: Store, listings: Listings
) -> None:
    run = open_run(remote)
    hidden = remote.path(run.parts[0].name)
    listings.see = lambda there: there - {hidden}
    second = OpenRun.find(remote)
    assert second is not None
    second.take_up(full=False)
    listings.catch_up()
    third = OpenRun.find(remote)
    assert third is not None
    assert [part.name for part in third.parts] == [part.name for part in run.parts[1:]]


def test_a_run_that_the_next_one_overlooked_is_not_continued(
    remote: Store, listings: Listings, caplog: pytest.LogCaptureFixture
) -> None:
    overlooked = open_run(remote)
    listings.forget()
    assert OpenRun.find(remote) is None
    following = OpenRun.begin(remote, OpenRecord())
    listings.catch_up()
    assert _found(remote)[0] is not None
    found = OpenRun.find(remote)
    assert found is not None
    assert found.run_id == following.run_id
    closed(following)
    found, _ = _found(remote)
    assert found is None
    assert overlooked.run_id in caplog.text
