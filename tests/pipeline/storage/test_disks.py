"""Disks that lack what others have: FAT, network filesystems, FUSE."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.contract.errors import RunError
from pipeline.contract.layout import LEASE
from pipeline.output.lease import Lease
from pipeline.output.merging.tally import Tally
from pipeline.output.publish import publish, seal
from pipeline.output.staged import stage
from pipeline.storage.store import Store
from tests.support.outputs import open_runs

Refuse = Callable[[str, int], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Makes a function of ``os`` fail as on a disk that has no such thing."""

    def make(function: str, code: int) -> None:
        def fail(*args: object, **options: object) -> NoReturn:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, function, fail)

    return make


WITHOUT_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.mark.parametrize("code", WITHOUT_LINKS)
class TestWithoutHardLinks:
    def test_a_file_is_created_once(self, tmp_path: Path, refuse: Refuse, code: int) -> None:
        refuse("link", code)
        store = Store(str(tmp_path))
        assert not store.create("x", b"first")
        assert not store.create("x", b"second")
        assert store.read_bytes("x") == b"first"
        assert store.list("") == {"x": 5}

    def test_of_many_runs_one_has_the_lease(
        self, tmp_path: Path, refuse: Refuse, code: int
    ) -> None:
        refuse("link", code)
        store = Store(str(tmp_path))
        taken: list[str] = []
        done = threading.Barrier(6)

        def compete() -> None:
            try:
                with Lease(store, renew_seconds=0.2, stale_seconds=3) as lease:
                    taken.append(lease.owner)
                    done.wait(60)
            except RunError:
                done.wait(60)

        threads = [threading.Thread(target=compete) for _ in range(5)]
        for thread in threads:
            thread.start()
        done.wait(60)
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        assert not store.exists(LEASE)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_without_fsync(tmp_path: Path, refuse: Refuse, code: int) -> None:
    refuse("fsync", code)
    store = Store(str(tmp_path))
    store.write_bytes("a/x", b"1")
    with Lease(store) as lease:
        lease.check()
    assert store.list("") == {"a/x": 1}


def test_a_disk_that_is_full_is_no_such_disk(tmp_path: Path, refuse: Refuse) -> None:
    refuse("fsync", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        Store(str(tmp_path)).write_bytes("x", b"1")
    refuse("link", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        Store(str(tmp_path)).create("y", b"1")
    assert not Store(str(tmp_path)).exists("y")
    assert not list(tmp_path.iterdir()), "what was begun takes no room"


def test_a_merged_file_that_has_no_room_leaves_no_half(tmp_path: Path, refuse: Refuse) -> None:
    refuse("fsync", errno.ENOSPC)
    with pytest.raises(OSError, match=rf"{tmp_path} is full, make room there .*No space left"):
        stage(Store(str(tmp_path)), "data/x", "aside/1/x", lambda file: file.write(b"half"))
    assert not Store(str(tmp_path)).list("")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_on_a_full_disk_can_be_started_again(tmp_path: Path, refuse: Refuse) -> None:
    refuse("fsync", errno.ENOSPC)
    with pytest.raises(RunError, match=rf"{tmp_path} is full, make room there .*No space left"):
        Lease(Store(str(tmp_path))).__enter__()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("moved_before", [0, 1, 2])
def test_without_renames_of_directories(
    local_store: Store, monkeypatch: pytest.MonkeyPatch, code: int, moved_before: int
) -> None:
    """Also when the move was interrupted, and the same call goes on."""
    rename = os.replace

    def files_only(source: Path, target: Path) -> None:
        if Path(source).is_dir():
            raise OSError(code, os.strerror(code))
        rename(source, target)

    monkeypatch.setattr(os, "replace", files_only)
    for number in range(2):
        local_store.write_bytes(f"from/{number}", b"x")
    local_store.write_bytes("from/deep/er", b"y")
    for number in range(moved_before):
        local_store.move(f"from/{number}", f"to/{number}")
    local_store.move("from", "to")
    assert local_store.list("") == {"to/0": 1, "to/1": 1, "to/deep/er": 1}
    local_store.move("from", "to")


def test_a_run_is_published(local_store: Store, refuse: Refuse) -> None:
    refuse("link", errno.EPERM)
    refuse("fsync", errno.EINVAL)
    run = open_runs.open_run(local_store)
    manifest = open_runs.manifest_of(run, Tally())
    seal(run, manifest, "<p>report</p>")
    assert publish(run) == manifest
    assert local_store.exists("latest.json")
