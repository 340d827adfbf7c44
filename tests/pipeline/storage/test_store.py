"""The output store, on local disks and on S3."""

import socket
from itertools import count
from pathlib import Path

import fsspec
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.output.lease import Lease
from pipeline.sources.inventory import inventory
from pipeline.storage.store import Store
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket


class TestStore:
    def test_bytes_and_json_come_back(self, store: Store) -> None:
        store.write_bytes("deep/er/x.bin", b"\x00\xff")
        store.write_json("x.json", {"ü": [1, None]})
        assert store.read_bytes("deep/er/x.bin") == b"\x00\xff"
        assert store.read_json("x.json") == {"ü": [1, None]}
        assert store.read_json("nothing.json") is None
        assert store.exists("x.json")
        assert not store.exists("deep/x.json")
        with fsspec.open(store.locate("x.json")) as file:
            assert "ü" in file.read().decode()

    def test_writing_again_replaces(self, store: Store) -> None:
        store.write_bytes("x", b"long old content")
        store.write_bytes("x", b"new")
        assert store.read_bytes("x") == b"new"
        assert list(store.list("")) == ["x"]

    def test_listing_is_recursive_sorted_and_sized(self, store: Store) -> None:
        for name in ("b/y", "b/x/z", "a", "bb/w"):
            store.write_bytes(name, name.encode())
        assert store.list("") == {"a": 1, "b/x/z": 5, "b/y": 3, "bb/w": 4}
        assert list(store.list("b")) == ["b/x/z", "b/y"]
        assert store.list("c") == {}

    def test_children_are_direct_and_sorted(self, store: Store) -> None:
        for name in ("runs/2/a/b", "runs/1/x", "runs/10", "other/x"):
            store.write_bytes(name, b"")
        assert list(store.children("runs")) == ["1", "10", "2"]
        assert list(store.children("nothing")) == []

    def test_move_of_a_directory_and_again(self, store: Store) -> None:
        for name in ("from/a", "from/b/c", "from2/d"):
            store.write_bytes(name, name.encode())
        for _ in range(2):
            store.move("from", "to/x")
            assert list(store.list("")) == ["from2/d", "to/x/a", "to/x/b/c"]
        assert store.read_bytes("to/x/b/c") == b"from/b/c"

    def test_move_of_a_file(self, store: Store) -> None:
        store.write_bytes("from/a", b"1")
        store.write_bytes("from/ab", b"2")
        store.move("from/a", "to")
        assert store.list("") == {"from/ab": 1, "to": 1}

    def test_remove_of_files_and_directories(self, store: Store) -> None:
        for name in ("x/a", "x/b/c", "xy", "z"):
            store.write_bytes(name, b"")
        store.remove("x")
        store.remove("x")
        store.remove("z")
        assert list(store.list("")) == ["xy"]


def test_interrupted_move_on_s3_is_finished_by_the_same_call(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local move is one rename, and needs no such care."""
    store = Store(s3_bucket.uri)
    names = [f"from/{n}" for n in range(4)]
    for name in names:
        store.write_bytes(name, name.encode())
    fs = store.fs
    remove, calls = fs.rm_file, count()

    def fail_third(path: str) -> None:
        if next(calls) == 2:
            raise OSError("storage is gone")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "rm_file", fail_third)
        with pytest.raises(OSError, match="storage is gone"):
            store.move("from", "to")
    store.move("from", "to")
    assert [store.read_bytes(f"to/{n}").decode() for n in range(4)] == names
    assert len(store.list("")) == 4


def test_interrupted_write_leaves_the_old_file(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies before the rename leaves a name that no listing shows."""
    local_store.write_bytes("x", b"old")

    def die(path: Path, target: Path) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(OSError, match="killed"):
            local_store.write_bytes("x", b"new")
    assert local_store.read_bytes("x") == b"old"
    assert list(local_store.list("")) == ["x"]


def test_store_behind_another_protocol() -> None:
    """fsspec knows paths by names of its own: in memory they start with a slash."""
    store = Store("memory://bucket/out")
    store.write_bytes("a/b", b"1")
    assert store.list("") == {"a/b": 1}
    assert list(store.children("a")) == ["b"]
    assert store.locate("a/b") == "memory://bucket/out/a/b"
    store.move("a", "c")
    assert store.read_bytes("c/b") == b"1"
    store.remove("c")
    assert store.list("") == {}


def test_only_what_is_named_is_cleared_on_s3(s3_bucket: Bucket) -> None:
    store = Store(s3_bucket.uri)
    for name in ("x/a", "x/b", "x/c", "xy"):
        store.write_bytes(name, b"")
    store.clear("x", ["x/a", "x/gone"])
    assert list(store.list("x")) == ["x/b", "x/c"]
    assert store.list("x/b") == {}, "nothing is below it"
    assert store.list("x/b", or_itself=True) == {"x/b": 0}
    store.clear("x/b")
    store.clear("x", [])
    assert list(store.list("")) == ["x/b", "x/c", "xy"]
    store.clear("x")
    assert list(store.list("")) == ["xy"]


def test_a_large_object_is_one_request(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    """Not an upload in parts, which would stay if it were killed."""
    Store(s3_bucket.uri).write_bytes("x", bytes(100 * 2**20))
    assert [request.method for request in fault_proxy.requests] == ["PUT"]
    assert Store(s3_bucket.uri).list("") == {"x": 100 * 2**20}


def test_a_clock_that_s3_refuses_is_named(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    """Though the answer to the request for the file says nothing."""
    store = Store(s3_bucket.uri)
    store.write_bytes("x", b"1")
    fault_proxy.faults = Faults(credentials_code="RequestTimeTooSkewed", credentials_status=403)
    with pytest.raises(UsageError, match=rf"the clock of {socket.gethostname()} is 0 minutes"):
        Lease(store).__enter__()
    with pytest.raises(UsageError, match=rf"the clock of {socket.gethostname()} is 0 minutes"):
        next(inventory(InputSpec(uris=(f"{s3_bucket.uri}/photos",))))


def test_text_that_is_no_unicode_comes_back(local_store: Store) -> None:
    """Names of files on old disks, as Python has them."""
    value = {"uris": ["/B\udcfccher", "ü"], "odd": "\ud800"}
    local_store.write_json("x.json", value)
    assert local_store.read_json("x.json") == value
    assert "ü" in local_store.read_bytes("x.json").decode("utf-8")
