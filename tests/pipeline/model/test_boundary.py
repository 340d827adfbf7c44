"""Which files know that the network is a CvT."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODEL_ROOM = "pipeline/model/"
FAMILY = "pipeline/model/families/cvt.py"
MAKERS = (
    "jobs/bench/components/", "jobs/bench/gpu/waterfall.py", "jobs/bench/synthetic/", "jobs/demo/",
)  # fmt: skip
"""Jobs that measure, make up or train a CvT, and so are about one."""

FILES = [
    str(path.relative_to(ROOT))
    for package in ("pipeline", "jobs")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def from_cvt(tree: ast.AST) -> Iterator[str]:
    """What a file takes of the package, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "cvt")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cvt":
            yield from (alias.name for alias in node.names)


def classes_of_cvt(tree: ast.AST) -> Iterator[str]:
    """Names in the code, but not in texts, that are those of a CvT's class."""
    for node in ast.walk(tree):
        name = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name", ast.ClassDef: "name"}
        found = getattr(node, name.get(type(node), ""), "")
        if "Cvt" in found:
            yield found


@pytest.mark.parametrize("file", FILES)
def test_only_the_model_room_and_who_makes_a_cvt_import_it(file: str) -> None:
    if not file.startswith((MODEL_ROOM, *MAKERS)):
        assert not list(from_cvt(ast.parse((ROOT / file).read_text())))


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith(MAKERS)])
def test_one_file_names_its_classes(file: str) -> None:
    found = set(classes_of_cvt(ast.parse((ROOT / file).read_text())))
    assert bool(found) == (file == FAMILY), found
