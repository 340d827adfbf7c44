"""Listing local directories: what is found, under which name, in which version."""

import errno
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import pytest

import pipeline.sources.inventory
import pipeline.sources.listing
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import IMAGE_EXTENSIONS, InputSpec
from pipeline.sources.inventory import inventory
from pipeline.sources.listing import Entry
from pipeline.storage.files import read_bytes
from tests.support.inputs.listing import rows, touch, uris


def test_tree_is_listed_by_extension_in_order_of_name(tmp_path: Path) -> None:
    wanted = touch(tmp_path, *(f"d/x.{e}" for e in sorted(IMAGE_EXTENSIONS)), "e/Y.JPG", "z.TAR")
    wanted += touch(tmp_path, "z.tar.gz", "z.tgz")
    touch(tmp_path, "d/notes.txt", "labels.csv", "jpg", "x.jpg.bak", "e/x.gz")
    assert uris(tmp_path) == wanted


def test_rows_describe_their_file(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.jpg")
    status = os.stat(path)
    assert rows(tmp_path) == [
        {
            "uri": path,
            "kind": "image",
            "source_version": f"{status.st_size}-{status.st_mtime_ns}",
            "size_bytes": status.st_size,
        }
    ]


def test_version_changes_with_size_and_with_time_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    path = tmp_path / "a.jpg"

    def version() -> str:
        return str(rows(tmp_path)[0]["source_version"])

    os.utime(path, ns=(0, 10**18))
    first = version()
    assert version() == first
    os.utime(path, ns=(0, 10**18 + 1))
    assert version() != first
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(0, 10**18))
    assert version() != first


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[ac].jpg", ["a.jpg"]),
        ("[!a].jpg", ["b.jpg"]),
        ("d/*", ["d/e.jpg"]),
        ("d/**", ["d/e.jpg", "d/f/g.jpg", "d/f/h/i.png"]),
        ("**/*.png", ["d/f/h/i.png", "k.png"]),
        ("d/**/h/*", ["d/f/h/i.png"]),
        ("*/f/*.jpg", ["d/f/g.jpg"]),
        ("d/f/h/i.p?g", ["d/f/h/i.png"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, names: list[str]) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "k.png", "d/e.jpg", "d/f/g.jpg", "d/f/h/i.png", "n.txt")
    assert uris(tmp_path / pattern) == [str(tmp_path / name) for name in names]


def test_double_star_inside_a_name_is_a_usage_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(UsageError, match=r"\*\*") as refusal:
        uris(tmp_path / "a**.jpg")
    assert str(tmp_path) in str(refusal.value)


def test_names_with_glob_characters_are_names_first(tmp_path: Path) -> None:
    """Files and directories that exist are meant, even if they read like a pattern."""
    file, inside, _, _ = touch(tmp_path, "img[1].jpg", "set [2]*/a.jpg", "img1.jpg", "set 2/b.jpg")
    assert uris(file) == [file]
    assert uris(tmp_path / "set [2]*") == [inside]
    assert len(uris(tmp_path)) == 4


def test_glob_from_the_root_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry("/a.jpg", 1, "v"), Entry("/b/a.jpg", 1, "v")]
    walked = []

    def walk(root: str, above: object) -> Iterator[Entry]:
        walked.append(root)
        return iter(entries)

    monkeypatch.setattr(pipeline.sources.listing, "_walk_local", walk)
    assert uris("/[a].jpg") == ["/a.jpg"]
    assert walked == ["/"]


def test_odd_names_come_through(tmp_path: Path) -> None:
    names = ["#1 100%.jpg", "%20.jpg", "a::b.jpg", "a?b.jpg", "b\\c.jpg", "n\nl.jpg", "é/日.jpg"]
    wanted = touch(tmp_path, *names)
    assert uris(tmp_path) == wanted
    assert [read_bytes(uri).decode() for uri in wanted] == names


def test_name_that_is_no_utf8_is_listed_once_and_readable(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as file:
        file.write(b"bytes")
    (uri,) = uris(tmp_path)
    assert uri == f"{tmp_path}/caf\\udce9.jpg"
    assert read_bytes(uri) == b"bytes"


def test_directories_deeper_than_python_calls_functions(tmp_path: Path) -> None:
    wanted = touch(tmp_path, f"{'a/' * 100}x.jpg", "b.jpg")
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 80)
    try:
        assert uris(tmp_path) == wanted
    finally:
        sys.setrecursionlimit(usual)


def test_directories_whose_path_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A path may become longer than any that the system takes."""
    (wanted, _) = touch(tmp_path, "a.jpg", "deep/b.jpg")
    fail_at(monkeypatch, "deep", OSError(errno.ENAMETOOLONG, "File name too long"))
    assert uris(tmp_path) == [wanted]
    assert f"left out, for its path is too long to open: {tmp_path}/deep" in caplog.text


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> None:
    """Let reading the directories of a name fail."""
    scandir = os.scandir

    def scan(path: str) -> Any:
        if path.endswith(f"/{name}"):
            raise error
        return scandir(path)

    monkeypatch.setattr("pipeline.sources.listing.os.scandir", scan)


def test_a_directory_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As lost+found, at the root of a disk."""
    (wanted,) = touch(tmp_path, "a.jpg")
    (tmp_path / "lost+found").mkdir()
    fail_at(monkeypatch, "lost+found", PermissionError(13, "Permission denied", "lost+found"))
    with pytest.raises(UsageError, match=r"lost\+found.*leave it out with .*inputs.exclude"):
        uris(tmp_path)
    for pattern in ("lost+found", "lost+found/", "/lost+found", f"{tmp_path}/lost+found"):
        (table,) = inventory(InputSpec(uris=(str(tmp_path),), exclude=(pattern,)))
        assert table["uri"].to_pylist() == [wanted]


class TestLinks:
    def test_links_are_followed_but_not_in_a_circle(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/b/x.jpg")
        (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
        (tmp_path / "c").symlink_to(tmp_path / "a")
        (tmp_path / "y.jpg").symlink_to(tmp_path / "a/b/x.jpg")
        assert uris(tmp_path) == [
            str(tmp_path / name) for name in ("a/b/x.jpg", "c/b/x.jpg", "y.jpg")
        ]

    def test_dangling_link_is_listed(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").symlink_to(tmp_path / "gone.jpg")
        (tmp_path / "x.txt").symlink_to(tmp_path / "gone.txt")
        assert uris(tmp_path) == [str(tmp_path / "x.jpg")]

    def test_link_to_itself_is_listed(self, tmp_path: Path) -> None:
        wanted = touch(tmp_path, "a.jpg")
        (tmp_path / "b.jpg").symlink_to("b.jpg")
        assert uris(tmp_path) == [*wanted, str(tmp_path / "b.jpg")]


def test_special_files_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    wanted = touch(tmp_path, "y.jpg/z.png")
    assert uris(tmp_path) == wanted


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="has no /proc")
def test_links_to_what_the_system_makes_up_are_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = touch(tmp_path, "a.jpg")
    (tmp_path / "b").symlink_to("/proc")
    scan, entered = os.scandir, []

    def note(path: str) -> Any:
        entered.append(path)
        return scan(path)

    monkeypatch.setattr("pipeline.sources.listing.os.scandir", note)
    assert uris(tmp_path) == wanted
    assert entered == [str(tmp_path)]


def test_what_vanishes_while_the_listing_runs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads rename and clean up while we look; that must not end the run."""
    wanted = touch(tmp_path, "a.jpg", "d/x.jpg", "z.jpg")
    touch(tmp_path, "b.jpg", "c/y.jpg")
    scandir = os.scandir

    def scan_and_lose(path: str) -> Any:
        with scandir(path) as scan:
            children = list(scan)
        for lost in (tmp_path / "b.jpg", tmp_path / "c/y.jpg"):
            lost.unlink(missing_ok=True)
        if (tmp_path / "c").is_dir():
            (tmp_path / "c").rmdir()
        return nullcontext(children)

    monkeypatch.setattr("pipeline.sources.listing.os.scandir", scan_and_lose)
    assert uris(tmp_path) == wanted


def test_glob_that_meets_directories_only_says_how_to_go_deeper(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    with pytest.raises(UsageError, match=r"no images .*\* stops at a slash and \*\* does not"):
        uris(tmp_path / "*")
    assert len(uris(tmp_path / "**")) == 2


def test_listing_through_another_protocol() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/photos/a.jpg", b"12")
    fs.pipe_file("/photos/b.txt", b"")
    (row,) = rows("memory://photos")
    assert row["size_bytes"] == 2
    assert read_bytes(row["uri"]) == b"12"
    first = row["source_version"]
    fs.pipe_file("/photos/a.jpg", b"34")
    assert rows("memory://photos/a.jpg")[0]["source_version"] != first
