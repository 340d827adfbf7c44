"""Files that people give to be added: all of them or none."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.contract.corrections import Correction
from pipeline.contract.errors import UsageError
from pipeline.output.corrections import adding
from pipeline.output.corrections.adding import add_files, output_at, read_file
from pipeline.output.corrections.collected import files, standing
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of

NOW = datetime(2026, 11, 27, tzinfo=UTC)
CLASSES = ["cat", "dog"]


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Two nights: s3://bucket/a00000N.jpg, s3://bucket/b00000N.jpg."""
    store = Store(str(tmp_path / "out"))
    for prefix in "ab":
        close_run(store, rows_of(np.full((4, 2), 0.5, np.float32), CLASSES, prefix=prefix), CLASSES)
    return store


def write(path: Path, *rows: str) -> str:
    path.write_text("uri,label\n" + "".join(f"{row}\n" for row in rows))
    return str(path)


def test_what_becomes_of_each_file(output: Store, tmp_path: Path) -> None:
    one = write(tmp_path / "1.csv", "s3://bucket/a000000.jpg,cat", "s3://bucket/b000003.jpg,dog")
    two = write(tmp_path / "2.csv", "s3://bucket/a000000.jpg,dog", "s3://bucket/c.jpg,dog")
    found = add_files(output, [one, two], NOW)
    assert [(f.is_new, f.corrections, f.unknown) for f in found] == [(True, 2, 0), (True, 2, 1)]
    assert str(found[1]) == f"added: 2 corrections of {two}, 1 of images that OUT does not have"
    assert standing(output)["s3://bucket/b000003.jpg"].label == "dog"
    (again,) = add_files(output, [one], NOW)
    assert str(again) == f"there already: 2 corrections of {one}"
    assert len(files(output)) == 2


def test_of_files_of_which_one_is_wrong_none_is_added(output: Store, tmp_path: Path) -> None:
    good = write(tmp_path / "1.csv", "s3://bucket/a000000.jpg,cat")
    half = write(tmp_path / "2.csv", "s3://bucket/a000001.jpg")
    other = write(tmp_path / "3.csv", "/somewhere/x.jpg,cat", "/else/y.jpg,cat")
    with pytest.raises(UsageError, match=r"2\.csv: line 2 has 1 cells"):
        add_files(output, [good, half], NOW)
    with pytest.raises(UsageError, match=r"2 of 2 corrections in .*3\.csv are of images that"):
        add_files(output, [good, other], NOW)
    assert files(output) == []


def test_an_output_that_lost_a_file_is_repaired_first(output: Store, tmp_path: Path) -> None:
    for name in output.list("data"):
        output.remove_file(name)
    with pytest.raises(UsageError, match=r"a file of a closed run is gone .*restore it"):
        add_files(output, [write(tmp_path / "1.csv", "s3://bucket/a000000.jpg,cat")], NOW)


def test_what_is_no_output_is_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="out holds no closed run; name the output of an earlier"):
        output_at(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"x\.csv does not exist; check corrections\.add"):
        read_file(str(tmp_path / "x.csv"))
    with pytest.raises(UsageError, match=r"cannot read corrections\.add"):
        read_file(str(tmp_path))
    monkeypatch.setattr(adding, "MOST_BYTES", 10)
    with pytest.raises(UsageError, match="has more than 0 MiB; split it"):
        read_file(write(tmp_path / "l.csv", "/a.jpg,cat"))


def test_a_file_is_read_by_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('\n[{"image": "a", "label": "cat"}]')
    (tmp_path / "b.json").write_text("uri,label\na,cat\n")
    for name in ("a.txt", "b.json"):
        assert read_file(str(tmp_path / name)) == [Correction(uri="a", label="cat")]
