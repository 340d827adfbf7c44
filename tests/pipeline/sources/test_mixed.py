"""What a file is, is decided file by file: directories of everything give every image a row."""

from pathlib import Path
from typing import Any

import fsspec
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.sources.exclusion import EXTENSIONS_TOLD, Exclusion, OtherFiles, told
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import ReadOptions
from pipeline.sources.formats.parquet.files import parquet_schema
from pipeline.sources.inventory import inventory
from tests.support.inputs.fetching import MIB
from tests.support.inputs.listing import touch
from tests.support.inputs.tars import tar_bytes


def table(path: Path, /, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def found(path: Path, **options: Any) -> dict[str, str]:
    """The images by their URI below the directory, and their content or error code."""
    spec = InputSpec(uris=(str(path),), **options)
    found = {}
    for listing in inventory(spec):
        work = listing.append_column("_done", pa.nulls(len(listing), pa.list_(pa.string())))
        for item in fetch_items(work, MIB, ReadOptions.of(spec, pa.schema([]))):
            value = item.error.code if item.error else (item.data or b"").decode()
            found[item.uri.removeprefix(f"{path}/")] = value
    return found


EVERYTHING = {
    "a.jpg": "a",
    "b.tar#b.jpg": "b",
    "c.tar.gz": "shard_corrupt",
    "d/bytes.parquet#0": "d",
    "d/struct.parquet#0": "e",
    "d/view.parquet#0": "f",
    "e/cut.parquet": "shard_truncated",
}


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """Images, shards of several schemas, damaged files, lists and other tables, of which the ones
    without images come first and last."""
    root = tmp_path / "in"
    table(root / "0-metadata.parquet", id=[1, 2], caption=["a", "b"])
    table(root / "0-list.parquet", path=["a.jpg"], split=["train"])
    (root / "a.jpg").write_bytes(b"a")
    (root / "b.tar").write_bytes(tar_bytes({"b.jpg": b"b"}))
    (root / "c.tar.gz").write_bytes(b"no tar" * 200)
    table(root / "d" / "bytes.parquet", bytes=[b"d"], id=[1])
    table(root / "d" / "struct.parquet", image=[{"bytes": b"e", "path": "e.jpg"}])
    table(root / "d" / "view.parquet", img=pa.array([b"f"], pa.binary_view()), jpg=["text"])
    (root / "e").mkdir()
    (root / "e" / "cut.parquet").write_bytes(b"PAR1 no more PAR?")
    table(root / "z" / "part-0.parquet", x=[1.0])
    return root


def test_every_image_of_a_mixed_directory(
    everything: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert found(everything) == EVERYTHING
    assert "3 Parquet files without images left out" in caplog.text
    assert "0-metadata.parquet" in caplog.text


def test_a_glob_finds_the_same(everything: Path) -> None:
    parquet = {name: value for name, value in EVERYTHING.items() if ".parquet" in name}
    spec = InputSpec(uris=(str(everything / "**/*.parquet"),))
    kinds = {row["uri"]: row["kind"] for table in inventory(spec) for row in table.to_pylist()}
    assert {uri.removeprefix(f"{everything}/") for uri in kinds} == {
        name.partition("#")[0] for name in parquet
    }
    assert set(kinds.values()) == {"parquet"}


def test_lists_that_are_alone_are_read_and_other_tables_cost_them_nothing(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"1")
    table(tmp_path / "in" / "a.parquet", id=[1])
    table(tmp_path / "in" / "b.parquet", path=["../1.jpg"])
    table(tmp_path / "in" / "c.parquet", file_name=["../1.jpg", "../2.jpg"])
    expected = {f"{tmp_path}/1.jpg": "1", f"{tmp_path}/2.jpg": "not_found"}
    assert found(tmp_path / "in") == expected


def test_a_directory_of_other_tables_is_a_usage_error(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", id=[1], note=["x"])
    with pytest.raises(UsageError, match=r"a\.parquet has neither .* but id, note; name one with"):
        found(tmp_path)
    table(tmp_path / "b.parquet", photo=[b"p"])
    assert found(tmp_path, image_column="photo") == {"b.parquet#0": "p"}


def test_a_file_that_may_not_be_read_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "a.parquet", image=[b"a"])
    table(tmp_path / "b.parquet", image=[b"b"])

    def refuse(uri: str) -> Any:
        raise PermissionError(uri)

    monkeypatch.setattr("pipeline.sources.formats.parquet.files.open_binary", refuse)
    assert found(tmp_path) == {"a.parquet#0": "a", "b.parquet#0": "b"}


def test_a_file_with_a_type_that_arrow_has_not_costs_itself(tmp_path: Path) -> None:
    """Polars writes integers of 128 bits."""
    wide = polars.Series([1]).cast(polars.Int128)
    polars.DataFrame({"image": [b"a"], "n": wide}).write_parquet(tmp_path / "a.parquet")
    table(tmp_path / "b.parquet", image=[b"b"], n=[1])
    assert found(tmp_path) == {"a.parquet": "shard_corrupt", "b.parquet#0": "b"}
    with pytest.raises(UsageError, match=r"a\.parquet cannot be read .*64 bits"):
        parquet_schema(str(tmp_path / "a.parquet"))


def test_lists_whose_columns_are_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"1")
    for name, content in {"l.csv": "ID,PATH\n7,1.jpg\n", "l.jsonl": '{"Path": "1.jpg"}\n'}.items():
        (tmp_path / name).write_text(content)
        assert found(tmp_path / name) == {f"{tmp_path}/1.jpg": "1"}
    table(tmp_path / "l.parquet", FILE_NAME=["1.jpg"])
    assert found(tmp_path / "l.parquet") == {f"{tmp_path}/1.jpg": "1"}


def others(*uris: str | Path, outside: str = "", **options: Any) -> dict[str, int]:
    """Files of other kinds, as a person is told of them."""
    spec = InputSpec(uris=tuple(map(str, uris)), **options)
    exclusion = Exclusion(spec.exclude)
    assert list(inventory(spec, exclude=outside, exclusion=exclusion))
    return told(exclusion.others.numbers)


OTHERS = {"txt": 3, "mp4": 2, "raw": 2, "without extension": 2, "psd": 1}
BESIDE = (
    *("a.jpg", "notes.txt", "d/x.MP4", "d/y.mp4", "d/z.raw", "d.e/README", "l.txt", "m.txt"),
    *("a. b c", "x.tar.raw", "p.psd"),
)
HIDDEN = (
    *(".DS_Store", "d/Thumbs.db", "d/DESKTOP.INI", "_SUCCESS", "d/_committed_7", ".git/HEAD"),
    *("d/.ipynb_checkpoints/x.txt", "@eaDir/a.mp4", "._notes.txt"),
)


class TestOtherFiles:
    def test_they_are_counted_by_extension(self, tmp_path: Path) -> None:
        touch(tmp_path, *BESIDE, *HIDDEN)
        assert list(others(tmp_path).items()) == list(OTHERS.items())
        assert others(f"{tmp_path}/d/**", extensions=("raw",)) == {"mp4": 2}

    def test_an_input_inside_a_hidden_directory(self, tmp_path: Path) -> None:
        touch(tmp_path / ".cache" / "lost+found", "a.jpg", "b.txt")
        assert others(tmp_path / ".cache" / "lost+found") == {"txt": 1}

    def test_other_stores(self) -> None:
        memory = fsspec.filesystem("memory")
        for name in (*BESIDE, *HIDDEN):
            memory.pipe_file(f"/other-files/{name}", b"x")
        assert others("memory://other-files") == OTHERS

    def test_what_is_asked_for_makes_the_rest_other(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg", "b.jpg", "c.png", "d.tar")
        assert others(tmp_path, format="webdataset") == {"jpg": 2, "png": 1}
        assert others(tmp_path, extensions=("jpg",)) == {"png": 1}

    def test_excluded_ones_and_those_of_the_output_are_not(self, tmp_path: Path) -> None:
        touch(tmp_path, *BESIDE, "out/runs/r/report.html", "out/latest.json")
        out = str(tmp_path / "out")
        assert others(tmp_path, outside=out) == OTHERS
        left = others(tmp_path, outside=out, exclude=("*.txt", "d"))
        assert left == {"raw": 1, "without extension": 2, "psd": 1}

    def test_inputs_that_overlap(self, tmp_path: Path) -> None:
        touch(tmp_path, *BESIDE, "d/b.jpg")
        root, inside = str(tmp_path), str(tmp_path / "d")
        for uris in (
            *([root, inside], [inside, root], [root, root]),
            *([f"{root}/**", root], [root, f"{inside}/*"], [f"{inside}/*", f"{root}/**"]),
        ):
            assert others(*uris) == OTHERS, uris

    def test_tables_and_lists_beside_images(self, everything: Path) -> None:
        (everything / "list.csv").write_text("path")
        assert others(everything) == {"parquet": 3, "csv": 1}

    def test_an_input_of_nothing_else_says_what_there_is(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/a.jpg", "a/a.txt", "b/b.mp4", "b/c.mp4", "c/x.md")
        with pytest.raises(UsageError, match=r"/b; .*; 2 files of other kinds not taken: 2 mp4$"):
            others(tmp_path / "a", tmp_path / "b")
        with pytest.raises(UsageError, match=r"1 file of another kind not taken: 1 md$"):
            others(tmp_path / "c")

    def test_however_many_extensions(self) -> None:
        files = OtherFiles()
        for number in range(20_000):
            files.add(f"d/{number}.x{number}")
            files.add(f"d/{number}.heics")
            files.add(f"d/{number}.{'y' * 17}")
        assert len(files.numbers) <= 1001
        numbers = told(files.numbers)
        assert len(numbers) == EXTENSIONS_TOLD + 1
        assert list(numbers)[:2] == ["heics", "without extension"]
        assert (numbers["heics"], sum(numbers.values())) == (20_000, 60_000)
        assert list(numbers)[-1] == "with other extensions"
