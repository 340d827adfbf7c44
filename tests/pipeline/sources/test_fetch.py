"""Fetching single images: one item each, in order, whatever became of them since the listing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

import pipeline.storage.files
import pipeline.storage.retry
from pipeline.contract.schema import WORK
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from tests.support.inputs.fetching import MIB, code, fetch


def test_items_hold_bytes_and_what_the_listing_said(tmp_path: Path) -> None:
    (tmp_path / "ü #1.jpg").write_bytes(b"bytes")
    (tmp_path / "empty.jpg").write_bytes(b"")
    first, second = fetch(tmp_path / "ü #1.jpg", tmp_path / "empty.jpg", source_version="7")
    assert first == Item(
        uri=f"{tmp_path}/ü #1.jpg", source_version="7", size_bytes=5, data=b"bytes"
    )
    assert (second.data, second.size_bytes) == (b"", 0)


def test_no_rows_no_items() -> None:
    assert list(fetch_items(WORK.empty_table(), MIB)) == []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "not_found"),
        (lambda path: path.mkdir(), "not_found"),
        (lambda path: path.symlink_to("gone.jpg"), "not_found"),
        (lambda path: path.write_bytes(b"12345678"), None),
        (lambda path: path.write_bytes(b"123456789"), "too_large"),
    ],
    ids=["gone", "directory", "dangling", "as large as allowed", "grown too large"],
)
def test_what_became_of_a_file_since_the_listing(
    tmp_path: Path, make: Callable[[Path], object], expected: str | None
) -> None:
    make(tmp_path / "x.jpg")
    (item,) = fetch(tmp_path / "x.jpg", max_bytes=8)
    assert code(item) == expected


def test_file_in_the_place_of_a_directory_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"")
    (item,) = fetch(tmp_path / "d/x.jpg")
    assert code(item) == "not_found"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_access_denied(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    (tmp_path / "x.jpg").chmod(0)
    (item,) = fetch(tmp_path / "x.jpg")
    assert code(item) == "access_denied"


def test_file_listed_as_too_large_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.storage.files, "_open", None)
    (item,) = fetch(tmp_path / "x.jpg", size_bytes=MIB + 1)
    assert code(item) == "too_large"
    assert item.size_bytes == MIB + 1
    assert "--max-bytes" in str(item.error)


def test_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResourceWarnings are errors here; this one counts what is open, too."""
    (tmp_path / "x.jpg").write_bytes(b"x")
    files: list[IO[bytes]] = []
    open_file = pipeline.storage.files._open

    def keep(*arguments: Any, **options: Any) -> IO[bytes]:
        files.append(open_file(*arguments, **options))
        return files[-1]

    monkeypatch.setattr(pipeline.storage.files, "_open", keep)
    fetch(*[tmp_path / "x.jpg"] * 20)
    assert len(files) == 20
    assert all(file.closed for file in files)
