"""A publication that may break off anywhere: the next start of the command finishes it."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.contract import layout
from pipeline.contract.errors import RunError
from pipeline.contract.manifest import Manifest
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import merge
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.output.publish import is_closed, publish, seal
from pipeline.output.staged import Uploads, stage
from pipeline.storage.objects.s3.uploads import Sending, abort
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import (
    METADATA,
    finished_tree,
    manifest_of,
    merged_run,
    open_run,
)
from tests.support.processes.killed import KilledError, killed_after
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket


def finish(run: OpenRun, manifest: Manifest) -> None:
    """What a run does last."""
    sealed = seal(run, manifest, "<html>")
    assert is_closed(run)
    assert publish(run, sealed=sealed) == manifest


def finish_in_two(run: OpenRun, manifest: Manifest) -> None:
    """What a run and the next start do, between which nothing is remembered."""
    seal(run, manifest, "<html>")
    assert is_closed(run)
    assert publish(run) == manifest


Finish = Callable[[OpenRun, Manifest], None]


def resume(store: Store) -> None:
    """What the next start of a command does."""
    run = OpenRun.find(store)
    if run is not None:
        assert is_closed(run)
        publish(run)


def test_publication_may_break_off_after_any_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_every_step(store, monkeypatch, finish)


@pytest.mark.parametrize(
    "store", ["local", pytest.param("s3", marks=pytest.mark.server)], indirect=True
)
def test_so_may_that_of_what_an_earlier_attempt_closed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_every_step(store, monkeypatch, finish_in_two)


@pytest.mark.slow
def test_so_may_one_on_another_server(moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    check_every_step(moto, monkeypatch, finish_in_two)


def check_every_step(store: Store, monkeypatch: pytest.MonkeyPatch, finish: Finish) -> None:
    whole = Store(f"{store.uri}/whole")
    run, manifest = merged_run(whole)
    with killed_after(10**6, monkeypatch, whole) as steps:
        finish(run, manifest)
    expected = finished_tree(whole, run.run_id)
    assert sorted(expected) == [
        "corrections/columns.csv",
        "current.json",
        *(f"data/run=ID/part-0000{n}.parquet" for n in range(3 if store.is_local else 2)),
        "history/index.json", "history/rows-ID-0.parquet",
        "images.sql", "latest.json", "runs/ID/manifest.json", "runs/ID/report.html",
    ]  # fmt: skip
    written = [step for step in steps if "latest.json" in step]
    assert steps.index(written[0]) > max(
        n for n, step in enumerate(steps) if "/runs/" in step or "/data/run=" in step
    )

    for broken_after in range(len(steps)):
        part = Store(f"{store.uri}/{broken_after}")
        run, manifest = merged_run(part)
        with (
            killed_after(broken_after, monkeypatch, part),
            pytest.raises(KilledError),
        ):
            finish(run, manifest)
        check_readable(part, run, steps=broken_after)
        found = OpenRun.find(part)
        if found is not None and not is_closed(found):
            finish(found, manifest_of(found, merge(found, METADATA, 4)))
        resume(part)
        resume(part)
        OpenRun.begin(part, OpenRecord()).discard()  # the next run, which cleans up what is left
        assert finished_tree(part, run.run_id) == expected, broken_after
        assert not uploads_in(part), broken_after


def check_readable(store: Store, run: OpenRun, steps: int) -> None:
    """What a reader may see of a publication that broke off: whole files of closed runs only."""
    visible = [name for name in store.list("data") if not name.endswith(".parquet")]
    assert not visible, steps
    if store.exists("latest.json"):
        latest = store.read_json("latest.json")
        manifest = store.read_json(latest["manifest"])
        assert {file["name"] for file in manifest["files"]} == set(store.list("data"))
        assert store.read_json("current.json")["files"] == sorted(store.list("data"))
        assert History.load(store).runs[0].run_id == run.run_id


def uploads_in(store: Store) -> list[str]:
    """The keys of what S3 keeps of uploads that were begun and not ended."""
    if store.protocol != "s3":
        return []
    bucket, _, prefix = store.path().partition("/")
    found: Any = store.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    return [upload["Key"] for upload in found.get("Uploads", [])]


class TestOnS3:
    """Merged files are uploads to their final places, which publishing completes."""

    @pytest.fixture
    def store(self, s3_bucket: Bucket) -> Store:
        return Store(f"{s3_bucket.uri}/out put+ü")

    @pytest.mark.slow
    def test_so_on_another_server(self, moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.test_nothing_is_copied(moto, monkeypatch)
        moto.remove("")
        self.test_a_discarded_run_leaves_no_upload(moto)

    def test_nothing_is_copied(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        with killed_after(10**6, monkeypatch, store) as steps:
            run, manifest = merged_run(store)
            assert len(uploads_in(store)) == len(manifest.files) == 2
            assert not store.list("data")
            finish(run, manifest)
        assert not [step for step in steps if step.startswith("cp_file")]
        assert sorted(store.list("data")) == manifest.file_names
        rows = [read_table(store, name).num_rows for name in manifest.file_names]
        assert rows == [file.rows for file in manifest.files]

    def test_a_merge_may_break_off_after_any_step(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = open_run(store, 5)
        with killed_after(10**6, monkeypatch, store) as steps:
            merge(run, METADATA, 4)
        assert len(uploads_in(store)) == 2
        for broken_after in range(len(steps)):  # the next of which first withdraws what is left
            with killed_after(broken_after, monkeypatch, store), pytest.raises(KilledError):
                merge(run, METADATA, 4)
            assert not store.list("data")
        finish(run, manifest_of(run, merge(run, METADATA, 4)))
        assert len(store.list("data")) == 2
        assert not uploads_in(store)

    def test_a_discarded_run_leaves_no_upload(self, store: Store) -> None:
        theirs = Sending(store.path("data/of somebody else"))
        run, _ = merged_run(store)
        run.discard()
        late, _ = merged_run(store)
        store.remove_file(layout.open_record(late.run_id))
        OpenRun.begin(store, OpenRecord())
        assert uploads_in(store) == [theirs.path.partition("/")[2]]

    def test_uploads_that_a_rule_aborted_are_made_again(self, store: Store) -> None:
        run, manifest = merged_run(store)
        seal(run, manifest, "<html>")
        uploads = store.read_record(Uploads, layout.publish_uploads(run.run_id))
        assert uploads is not None
        lost = manifest.file_names[1]
        abort(store.path(lost), uploads.files[lost].id)
        with pytest.raises(RunError, match=r"are gone .* start the same command again"):
            publish(run)
        assert not store.list("data")
        found = OpenRun.find(store)
        assert found is not None
        assert not is_closed(found)
        finish(found, manifest_of(found, merge(found, METADATA, 4)))
        assert sorted(store.list("data")) == manifest.file_names

    def test_a_store_without_uploads_in_parts_copies(
        self, store: Store, fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        fault_proxy.faults = Faults(
            denied_pattern="/data/run=", denied_status=501, denied_code="NotImplemented",
            methods=("POST",), pattern="",
        )  # fmt: skip
        run, manifest = merged_run(store)
        assert "takes no uploads in parts: S3 answers 501 NotImplemented" in caplog.text
        finish(run, manifest)
        assert sorted(store.list("data")) == manifest.file_names

    def test_what_may_not_be_listed_stays(
        self, store: Store, fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        run, manifest = merged_run(store)
        fault_proxy.faults = Faults(denied_pattern="^/[^/]+/$", pattern="uploads=")
        finish(run, manifest)
        assert "a lifecycle rule of the bucket removes them" in caplog.text
        assert sorted(store.list("data")) == manifest.file_names


def test_publishing_twice_changes_nothing(store: Store) -> None:
    run, manifest = merged_run(store)
    finish(run, manifest)
    before = finished_tree(store, run.run_id)
    assert OpenRun.find(store) is None
    following = OpenRun.begin(store, OpenRecord())
    finish(following, manifest_of(following, merge(following, METADATA, None)))
    after = finished_tree(store, run.run_id)
    newest = {"latest.json", "current.json", "history/index.json"}
    assert {name: after[name] for name in before.keys() - newest} == {
        name: data for name, data in before.items() if name not in newest
    }
    assert store.read_json("latest.json")["run_id"] == following.run_id
    assert not store.list(f"data/run={following.run_id}")


def test_open_run_shows_nothing_to_readers(store: Store) -> None:
    run = open_run(store)
    merge(run, METADATA, 4)
    assert all(name.startswith("_") for name in store.list(""))
    assert History.load(store).runs == ()


def test_only_what_the_closing_attempt_merged_is_published(local_store: Store) -> None:
    """Workers of a killed attempt may still write their files."""
    run, _ = merged_run(local_store)
    late = layout.publish_data_dir(run.run_id, run.attempt)
    again = OpenRun.find(local_store)
    assert again is not None
    again.take_up(full=False)
    manifest = manifest_of(again, merge(again, METADATA, 4))
    local_store.write_bytes(f"{late}/{layout.data_file(0)}", b"of other rows")
    finish(again, manifest)
    assert sorted(local_store.list("data")) == manifest.file_names
    assert read_table(local_store, manifest.file_names[0]).num_rows == 4
    assert not local_store.list("_open")


def test_what_a_killed_task_left_of_a_file_is_not_published(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a local disk a file is written as it is merged."""
    run, manifest = merged_run(local_store)
    own = layout.publish_data_dir(run.run_id, run.attempt)
    halves: list[int] = []

    def write(file: IO[bytes]) -> None:
        file.write(b"x" * 2**20)
        halves.extend(path.stat().st_size for path in Path(local_store.uri).rglob("*.tmp"))
        raise KilledError

    with killed_after(0, monkeypatch, local_store), pytest.raises(KilledError):
        stage(local_store, manifest.file_names[0], f"{own}/{layout.data_file(0)}", write)
    assert halves == [2**20]
    assert list(Path(local_store.uri).rglob("*.tmp"))
    finish(run, manifest)
    assert not list(Path(local_store.uri).rglob("*.tmp"))
    assert sorted(local_store.list("data")) == manifest.file_names


def test_what_an_earlier_version_merged_is_published(store: Store) -> None:
    """It kept the files of all attempts in one directory."""
    run, manifest = merged_run(store)
    own = layout.publish_data_dir(run.run_id, run.attempt)
    for name in list(store.list(own)):
        store.write_bytes(name.replace(f"/{run.attempt}/", "/"), store.read_bytes(name))
    store.remove(own)
    finish(run, manifest)
    assert sorted(store.list("data")) == manifest.file_names
