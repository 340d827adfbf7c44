"""Members that are links to others: what tar tools unpack for them has a row."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.inputs.tars import add, content, failures, read, shard, tar_bytes

HARD, SYMBOLIC = {"type": tarfile.LNKTYPE}, {"type": tarfile.SYMTYPE}


def linked(*links: tuple[str, str, dict[str, bytes]]) -> bytes:
    """a.jpg, d/b.jpg and data/c, and links of a name, a target and a type."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("a.jpg", b"a"), ("d/b.jpg", b"b"), ("data/c", b"c")):
            add(tar, name, data)
        for name, target, kind in links:
            add(tar, name, linkname=target, **kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "target", "kind", "expected"),
    [
        ("x.jpg", "a.jpg", HARD, b"a"),
        ("d/x.jpg", "./a.jpg", HARD, b"a"),
        ("x.jpg", "data/c", HARD, b"c"),
        ("x.jpg", "a.jpg", SYMBOLIC, b"a"),
        ("d/x.jpg", "b.jpg", SYMBOLIC, b"b"),
        ("d/e/x.jpg", "../../a.jpg", SYMBOLIC, b"a"),
        ("./d/x.jpg", "../data/c", SYMBOLIC, b"c"),
    ],
)
def test_what_a_link_means(
    tmp_path: Path, name: str, target: str, kind: dict[str, bytes], expected: bytes
) -> None:
    uri = shard(tmp_path / "x.tar", linked((name, target, kind)))
    items = read(uri)
    assert content(items, uri) == {"a.jpg": b"a", "d/b.jpg": b"b", name: expected}
    assert items[-1].size_bytes == 1


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("gone.jpg", HARD),
        ("../a.jpg", SYMBOLIC),
        ("/etc/hostname", SYMBOLIC),
        ("d", SYMBOLIC),
        ("x.jpg", SYMBOLIC),
        ("y.jpg", SYMBOLIC),
    ],
)
def test_a_link_to_nothing_is_told(tmp_path: Path, target: str, kind: dict[str, bytes]) -> None:
    data = linked(("x.jpg", target, kind), ("y.jpg", "x.jpg", SYMBOLIC))
    uri = shard(tmp_path / "x.tar", data)
    items = read(uri)
    assert set(content(items, uri)) == {"a.jpg", "d/b.jpg"}
    assert failures(items) == [(f"{uri}#{n}.jpg", "not_found") for n in "xy"]
    assert f"link to {target}" in str(items[2].error)


def test_a_link_by_way_of_another(tmp_path: Path) -> None:
    links = [("newest", "today", SYMBOLIC), ("today", "d/b.jpg", SYMBOLIC), ("h", "newest", HARD)]
    uri = shard(tmp_path / "x.tar", linked(*links, ("x.jpg", "h", SYMBOLIC)))
    assert content(read(uri), uri)["x.jpg"] == b"b"


def test_of_names_that_come_again_a_hard_link_means_the_one_before_it(tmp_path: Path) -> None:
    first = linked(("x.jpg", "a.jpg", HARD), ("s.jpg", "a.jpg", SYMBOLIC))
    second = first.replace(b"a".ljust(512, b"\0"), b"A".ljust(512, b"\0"))
    uri = shard(tmp_path / "x.tar", first + second)
    found = content(read(uri), uri)
    assert (found["x.jpg"], found["x.jpg#2"]) == (b"a", b"A")
    assert (found["s.jpg"], found["s.jpg#2"]) == (b"A", b"A")


def test_links_are_as_large_as_what_they_mean_and_can_be_done(tmp_path: Path) -> None:
    links = [(f"{n}.jpg", "data/c", HARD) for n in range(3)]
    uri = shard(tmp_path / "x.tar", linked(*links))
    assert failures(read(uri, max_bytes=0))[2:] == [(f"{uri}#{n}.jpg", "too_large") for n in "012"]
    done = [f"{uri}#{name}" for name in ("a.jpg", "0.jpg", "2.jpg")]
    assert content(read(uri, done=done), uri) == {"d/b.jpg": b"b", "1.jpg": b"c"}


def test_links_in_front_of_the_damage_are_read(tmp_path: Path) -> None:
    whole = linked(("x.jpg", "a.jpg", HARD)) + tar_bytes({"z.jpg": bytes(2000)})[:1000]
    uri = shard(tmp_path / "x.tar", whole)
    items = read(uri)
    assert content(items, uri) == {"a.jpg": b"a", "d/b.jpg": b"b", "x.jpg": b"a"}
    assert failures(items) == [(uri, "shard_truncated")]


def test_as_the_tool_archives_and_unpacks_them(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "d").mkdir(parents=True)
    (source / "one.jpg").write_bytes(b"one")
    (source / "two.jpg").hardlink_to(source / "one.jpg")
    (source / "d" / "three.jpg").symlink_to("../two.jpg")
    (source / "four.jpg").symlink_to("d/three.jpg")
    for options in (["-czf"], ["-cf"], ["--format=posix", "-cf"], ["--format=v7", "-cf"]):
        tar = tmp_path / "x.tar"
        subprocess.run(["tar", *options, tar, "-C", source, "."], check=True)
        unpacked = tmp_path / "out"
        unpacked.mkdir(exist_ok=True)
        subprocess.run(["tar", "-xf", tar, "-C", unpacked], check=True)
        shown = {f"./{p.relative_to(unpacked)}": p.read_bytes() for p in unpacked.rglob("*.jpg")}
        assert len(shown) == 4
        assert content(read(str(tar)), str(tar)) == shown
