"""Decode and Predict in datasets of others: what a run gives, for the same images."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline import Decode, Predict, classify
from tests.support.commands import REPOSITORY
from tests.support.inputs.images import write_images
from tests.support.pages.markdown import blocks

pytestmark = pytest.mark.usefixtures("ray_local")

BAD = {"bad.jpg": b"no image", "empty.jpg": b""}
EXAMPLES = [block for block in blocks("docs/python.md") if __file__.endswith(block.about)]
SETTINGS: dict[str, Any] = {"with_embeddings": True, "top_k": 3, "dtype": "float32"}
Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 6)
    for name, data in BAD.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def expected(
    folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None
) -> pa.Table:
    """The table of a run over these images."""
    out = tmp_path_factory.mktemp("out")
    found = classify(folder, model=checkpoint, output=out, max_failure_rate=1, **SETTINGS)
    return found.table()


def predicted(ds: Any, model: Path, **options: Any) -> list[dict[str, Any]]:
    decoded = ds.map_batches(Decode(model=model), **options)
    rows: list[dict[str, Any]] = decoded.map_batches(
        Predict,
        fn_constructor_kwargs={"model": str(model), **SETTINGS},
        concurrency=1,
        num_cpus=0.5,
        **options,
    ).take_all()
    return sorted(rows, key=lambda row: str(row["uri"]))


def check(rows: list[dict[str, Any]], expected: pa.Table, *, but: tuple[str, ...] = ()) -> None:
    """The same in all columns of a run, but for these."""
    wanted = expected.to_pylist()
    assert [row["uri"] for row in rows] == [row["uri"] for row in wanted]
    numbers = {"score", "topk_scores", "embedding"}
    for found, row in zip(rows, wanted, strict=True):
        for name, value in row.items():
            if name in numbers and value is not None:
                assert list(_flat(found[name])) == pytest.approx(list(_flat(value)), abs=1e-5)
            elif name not in but:
                assert (list(found[name]) if isinstance(value, list) else found[name]) == value


def _flat(value: Any) -> list[float]:
    return [value] if isinstance(value, float) else list(value)


@pytest.mark.parametrize("batch_format", ["pyarrow", "default"])
def test_bytes(folder: Path, checkpoint: Path, expected: pa.Table, batch_format: str) -> None:
    paths = sorted(folder.iterdir())
    items = [
        {"uri": str(path), "content": path.read_bytes(), "number": number, "_note": path.stem}
        for number, path in enumerate(paths)
    ]
    rows = predicted(ray.data.from_items(items), checkpoint, batch_format=batch_format)
    check(rows, expected, but=("source_version",))
    assert [row["number"] for row in rows] == list(range(len(paths)))
    assert [row["_note"] for row in rows] == [path.stem for path in paths]
    assert not {"content", "_pixels"} & set(rows[0])


def test_uris(
    folder: Path, checkpoint: Path, expected: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    paths = sorted(folder.iterdir())
    items = [{"path": path.name if n % 2 else str(path)} for n, path in enumerate(paths)]
    rows = predicted(ray.data.from_items(items), checkpoint, batch_format="pandas")
    check(rows, expected)


def test_the_example_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    [block] = EXAMPLES
    found: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), found)
    assert {row["status"] for row in found["rows"].take_all()} == {"ok"}
