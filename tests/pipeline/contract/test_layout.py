"""The names below OUT: people's scripts know them, and the code spells each of them once."""

import ast
from pathlib import Path

import pytest

from pipeline.contract import layout

ROOT = Path(__file__).parents[3]
NAMES = (
    "_open", "_lease.json", "latest.json", "images.lance", "open.json", "manifest.json",
    "report.html", "classes.json", "changes.parquet", "review.parquet", "current.json",
    "/rows-",
    "run=", "part-", "/parts", "/publish",
)  # fmt: skip

HOME = "pipeline/contract/layout.py"
ELSEWHERE = {
    "pipeline/contract/spec/inputs.py": {"manifest.json"},
    "pipeline/output/history.py": {"_open"},
    "pipeline/plan/reuse.py": {"_open"},
    "pipeline/sources/formats/s3_inventory.py": {"manifest.json"},
}
"""S3 Inventory has a manifest, too; and a setting is called policy.discard_open_run."""


def test_names_that_scripts_rely_on() -> None:
    assert layout.data_dir("R") == "data/run=R"
    assert layout.data_file(7) == "part-00007.parquet"
    assert layout.manifest_file("R") == "runs/R/manifest.json"
    assert layout.report_file("R") == "runs/R/report.html"
    assert layout.classes_file("R") == "runs/R/classes.json"
    assert (layout.CHANGES, layout.REVIEW) == ("changes.parquet", "review.parquet")
    assert (layout.LATEST, layout.LANCE) == ("latest.json", "images.lance")
    assert layout.CURRENT == "current.json"


def test_what_is_not_closed_is_hidden_from_readers() -> None:
    """Spark, Arrow and Polars take no file whose path has a component that starts with "_"."""
    hidden = [
        layout.LEASE,
        layout.open_record("R"),
        layout.part_file("R", "attempt", 1, 2),
        layout.publish_manifest("R"),
        layout.publish_data_dir("R", "attempt"),
        layout.vanished_part("R", 1),
    ]
    assert all(name.startswith("_") for name in hidden)


def test_a_part_belongs_to_its_attempt() -> None:
    part = layout.part_file("R", "abc", 1, 2)
    assert part.startswith(layout.parts_of_attempt("R", "abc"))
    assert not part.startswith(layout.parts_of_attempt("R", "ab"))
    assert part.startswith(layout.parts_dir("R"))


FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py")]


@pytest.mark.parametrize("path", sorted({*FILES} - {HOME}))
def test_no_other_module_spells_one(path: str) -> None:
    for text in _strings(ast.parse((ROOT / path).read_text())):
        assert {name for name in NAMES if name in text} <= ELSEWHERE.get(path, set()), text


def test_the_layout_spells_them_all() -> None:
    texts = _strings(ast.parse((ROOT / HOME).read_text()))
    assert all(any(name in text for text in texts) for name in NAMES)


def _strings(tree: ast.Module) -> list[str]:
    """Every string of a module but those that document something."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documents
    ]
