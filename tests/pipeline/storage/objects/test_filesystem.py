"""Azure and Google as filesystems, on servers that their own clients fill and look into."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.storage.filesystems import filesystem
from pipeline.storage.objects import connection
from pipeline.storage.objects.filesystem import ObjectFileSystem
from pipeline.storage.uris import split_uri
from tests.support.servers.clouds import Cloud, Container, proxy_before
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults

KEYS = [
    "plain.jpg", "deep/er/still.jpg", "a b.jpg", "50%.jpg", "50%20.jpg", "%2F.jpg", "x#y.jpg",
    "x?y.jpg", "a+b.jpg", "ü/grün.jpg", "e\u0301.jpg", "日本.jpg", "x//y.jpg", "/lead.jpg",
    "new\nline.jpg", "tab\t.jpg", "q'uo\"te.jpg", "[a]*.jpg",
    "&amp;<x>.jpg", " spaces .jpg ", "v.jpg?versionid=3", "semi;colon=.jpg", "s@x.dfs.core/y.jpg",
]  # fmt: skip


def opened(container: Container) -> tuple[ObjectFileSystem, str]:
    protocol, path = split_uri(container.uri)
    found = filesystem(protocol)
    assert isinstance(found, ObjectFileSystem)
    return found, path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TRY_SECONDS", 0.5)


def test_every_key_is_read_listed_copied_and_removed(container: Container) -> None:
    fs, root = opened(container)
    for key in KEYS:
        container.put(key, key.encode())
    listed = {info["name"]: info for info in fs.below(root)}
    assert sorted(listed) == sorted(f"{root}/{key}" for key in KEYS)
    for key in KEYS:
        path = f"{root}/{key}"
        assert fs.named(path) == listed[path], key
        assert fs.cat_file(path) == key.encode()
        assert fs.cat_file(path, 1, 3) == key.encode()[1:3]
        fs.cp_file(path, f"{path}.copy")
        assert container.get(f"{key}.copy") == key.encode()
        fs.rm_file(path)
        fs.rm_file(path)
        assert fs.named(path) is None
    assert container.keys() == sorted(f"{key}.copy" for key in KEYS)


def test_what_is_written_arrives_whole(container: Container) -> None:
    fs, root = opened(container)
    for key in KEYS:
        fs.pipe_file(f"{root}/{key}", key.encode())
    assert container.keys() == sorted(KEYS)
    large = bytes(range(256)) * 40_000
    fs.pipe_file(f"{root}/large", large)
    fs.pipe_file(f"{root}/empty", b"")
    assert container.get("large") == large
    assert fs.cat_file(f"{root}/empty") == b""
    with fs.open(f"{root}/large") as file:
        file.seek(-300, 2)
        assert file.read() == large[-300:]


def test_dots_in_a_key_lead_nowhere_else(container: Container) -> None:
    """Azure's own client takes ``x/../y`` for ``y``."""
    fs, root = opened(container)
    keys = ["y.jpg", "x/../y.jpg", "./y.jpg", "x/./y.jpg"]
    for key in keys:
        fs.pipe_file(f"{root}/{key}", key.encode())
    assert [fs.cat_file(f"{root}/{key}").decode() for key in keys] == keys
    assert container.keys() == sorted(keys)


def test_listings_run_over_many_pages_and_know_what_others_did(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.objects.filesystem.PAGE_OBJECTS", 10)
    fs, root = opened(container)
    keys = sorted(f"{n % 7}/{n:04d}" for n in range(64))
    for key in keys:
        fs.pipe_file(f"{root}/p/{key}", b"1")
    container.put("pp/other", b"1")
    assert [info["name"] for info in fs.below(f"{root}/p")] == [f"{root}/p/{key}" for key in keys]
    container.put("p/new", b"1")
    container.delete("p/0/0000")
    assert len(list(fs.below(f"{root}/p"))) == 64
    assert sorted(fs.ls(f"{root}/p", detail=False))[0].startswith(f"{root}/p/0")
    assert f"{root}/p/new" in fs.ls(f"{root}/p", detail=False)
    assert not fs.exists(f"{root}/p/0/0000")
    assert fs.exists(f"{root}/p/new")


def test_of_two_that_create_an_object_one_wins(container: Container) -> None:
    fs, root = opened(container)
    fs.pipe_file(f"{root}/lease", b"first", mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{root}/lease", b"second", mode="create")
    assert container.get("lease") == b"first"


def test_what_is_missing_is_told_apart(container: Container) -> None:
    fs, root = opened(container)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{root}/nothing")
    with pytest.raises(FileNotFoundError):
        list(fs.below("no-such-container/x"))
    with pytest.raises(FileNotFoundError, match="no-such-container does not exist"):
        fs.pipe_file("no-such-container/x", b"1")
    assert list(fs.below(f"{root}/nothing")) == []


@pytest.fixture
def proxy(
    cloud: Cloud, container: Container, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    with proxy_before(cloud, monkeypatch) as proxy:
        yield proxy


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FIRST_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("fault", ["slow_down", "internal_error", "reset", "truncate"])
def test_what_passes_is_tried_again(container: Container, proxy: FaultProxy, fault: str) -> None:
    fs, root = opened(container)
    for n in range(20):
        container.put(f"{n}", b"x" * 1000)
    fractions: dict[str, Any] = {fault: 0.3}
    proxy.faults = Faults(**fractions, pattern=r".", seed=1)
    assert len(list(fs.below(root))) == 20
    for n in range(20):
        assert fs.cat_file(f"{root}/{n}") == b"x" * 1000
    assert proxy.count("GET", fault=fault) > 0


@pytest.mark.usefixtures("quick")
def test_a_store_that_is_away_or_denies_raises_what_a_disk_would(
    container: Container, proxy: FaultProxy
) -> None:
    fs, root = opened(container)
    container.put("a", b"1")
    proxy.faults = Faults(access_denied=1.0, pattern=r".", methods=("GET", "HEAD"))
    with pytest.raises(PermissionError):
        fs.cat_file(f"{root}/a")
    with pytest.raises(PermissionError):
        list(fs.below(root))
    with pytest.raises(PermissionError):
        fs.exists(f"{root}/a")
    proxy.faults = Faults(internal_error=1.0, pattern=r".")
    with pytest.raises(OSError, match="500"):
        fs.cat_file(f"{root}/a")
