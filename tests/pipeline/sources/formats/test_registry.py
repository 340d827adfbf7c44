"""What tells a format; and --extensions, which says what counts as an image."""

from pathlib import Path
from typing import get_args

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputFormat, InputSpec, suffixes
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import ReadOptions
from pipeline.sources.formats.registry import FORMATS
from tests.support.inputs.fetching import MIB, work
from tests.support.inputs.listing import rows, touch
from tests.support.inputs.tars import tar_bytes


def test_every_format_has_a_word_of_its_own() -> None:
    words = [format.word for format in FORMATS]
    assert sorted(("auto", *words)) == sorted(get_args(InputFormat))
    assert len({format.kind for format in FORMATS}) == len(FORMATS)


def test_suffixes_are_lower_case_and_those_of_shards_are_their_own() -> None:
    every = [suffix for format in FORMATS for suffix in format.suffixes]
    assert all(suffix == suffix.lower() and suffix[0] in "./" for suffix in every)
    shards = [suffix for format in FORMATS if format.is_shard for suffix in format.suffixes]
    assert len(set(shards)) == len(shards)
    assert all(format.suffixes for format in FORMATS if format.is_shard)


def test_extensions_replace_the_usual_ones(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "a.PPM", "b.pixels.npy", "s.tar")
    touch(tmp_path, "c.jpg", "d.npy", "xppm")
    found = rows(tmp_path, extensions=("ppm", "Pixels.npy"))
    assert [(row["uri"], row["kind"]) for row in found] == [
        (wanted[0], "image"),
        (wanted[1], "image"),
        (wanted[2], "webdataset"),
    ]


def test_members_of_tars_follow_extensions(tmp_path: Path) -> None:
    members = {"a.ppm": b"1", "b.jpg": b"2", "c.PPM": b"3"}
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    row = {"uri": str(tmp_path / "x.tar"), "kind": "webdataset"}
    options = ReadOptions(image_suffixes=suffixes(("ppm",)))
    assert [item.data for item in fetch_items(work(row), MIB, options)] == [b"1", b"3"]


@pytest.mark.parametrize("extensions", [(), ("",), (".jpg",), ("a/b",), ("a b",)])
def test_what_is_no_extension_is_refused(extensions: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"inputs\.extensions"):
        InputSpec(uris=("x",), extensions=extensions)
