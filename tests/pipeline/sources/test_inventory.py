"""The inventory of all inputs: their formats and spellings, what is left out, what is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.sources.inventory
import pipeline.sources.listing
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputFormat, InputSpec
from pipeline.sources.inventory import inventory
from tests.support.inputs.listing import rows, touch, uris


@pytest.mark.parametrize(
    ("input_format", "names"),
    [("auto", ["a.jpg", "b.tar"]), ("images", ["a.jpg"]), ("webdataset", ["b.tar"])],
)
def test_formats_choose(tmp_path: Path, input_format: InputFormat, names: list[str]) -> None:
    touch(tmp_path, "a.jpg", "b.tar")
    found = rows(tmp_path, format=input_format)
    assert [row["uri"] for row in found] == [str(tmp_path / name) for name in names]
    kinds = {"a.jpg": "image", "b.tar": "webdataset"}
    assert [row["kind"] for row in found] == [kinds[name] for name in names]


@pytest.mark.parametrize(
    "spelling", ["{}", "{}/", "file://{}", "local://{}/", "{}/../{name}", "{}//"]
)
def test_spellings_of_a_directory_give_the_same_uris(tmp_path: Path, spelling: str) -> None:
    touch(tmp_path, "a.jpg", "b/c.jpg")
    assert uris(spelling.format(tmp_path, name=tmp_path.name)) == uris(tmp_path)


def test_relative_and_home_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = touch(tmp_path, "in/a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert uris("in") == uris("~/in") == uris("./in/*.jpg") == wanted


@pytest.mark.parametrize("name", ["photo.dat", "photo", "IMG.HEIC", "notes.md"])
def test_named_file_is_an_image_whatever_its_extension(tmp_path: Path, name: str) -> None:
    (path,) = touch(tmp_path, name)
    (row,) = rows(path)
    assert (row["uri"], row["kind"]) == (path, "image")


def test_named_tar_is_a_shard(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "s.tar")
    assert rows(path)[0]["kind"] == "webdataset"


def test_overlapping_inputs_name_each_object_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/y.jpg", "b/z.jpg")
    found = uris(tmp_path / "a", tmp_path, tmp_path / "a/x.jpg", tmp_path / "**/*.jpg")
    assert sorted(found) == uris(tmp_path)


@pytest.mark.parametrize("shard", ["a.tar", "a#b.tar.gz", "a.parquet"])
def test_file_called_like_a_member_is_a_usage_error(tmp_path: Path, shard: str) -> None:
    touch(tmp_path, f"{shard}#1#.jpg", "a#.jpg")
    assert len(uris(tmp_path)) == 2, "there is no shard"
    if shard.endswith("parquet"):
        pq.write_table(pa.table({"image": [b""]}), tmp_path / shard)
    else:
        touch(tmp_path, shard)
    with pytest.raises(UsageError, match=r"#1#\.jpg is a file and also the URI of a mem.*rename"):
        uris(tmp_path)


def test_output_inside_the_input_is_left_out(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "a.jpg", "out2/b.jpg")
    touch(tmp_path, "out/data/c.jpg", "out/_open/d.tar")
    assert uris(tmp_path, exclude=str(tmp_path / "out")) == wanted
    assert uris(tmp_path, exclude=str(tmp_path / "out") + "/") == wanted


def test_input_inside_the_output_is_a_usage_error(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    for exclude in (tmp_path, tmp_path / "in"):
        with pytest.raises(UsageError, match=r"output\.uri") as refusal:
            uris(tmp_path / "in", exclude=str(exclude))
        assert str(exclude) in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "no images under"),
        (lambda path: touch(path, "notes.txt"), "no images under"),
        (lambda path: path.symlink_to("gone"), "does not exist"),
        (os.mkfifo, "cannot list .*: a pipe, .* is no INPUT"),
    ],
    ids=["missing", "empty", "no images", "dangling link", "pipe"],
)
def test_fruitless_input_is_a_usage_error(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "in"
    make(path)
    touch(tmp_path, "good/a.jpg")
    with pytest.raises(UsageError, match=message) as refusal:
        uris(tmp_path / "good", path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_directory_is_a_usage_error(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "in").chmod(0)
    with pytest.raises(UsageError, match="denied"):
        uris(tmp_path / "in")


def test_tables_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.sources.inventory, "CHUNK_ROWS", 4)
    wanted = touch(tmp_path, *(f"{n}.jpg" for n in range(9)))
    tables = list(inventory(InputSpec(uris=(str(tmp_path),))))
    assert [len(table) for table in tables] == [4, 4, 1]
    assert [uri for table in tables for uri in table["uri"].to_pylist()] == wanted
