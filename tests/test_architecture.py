"""The house stays in order: which way imports point, how large rooms and files may become.

The rooms of ``pipeline`` are listed from the top floor down; CONTRIBUTING says what belongs where.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("jobs", "pipeline", "cvt")
ROOMS = (
    "runs", "stages", "model", "plan", "monitoring", "sources", "output", "storage", "contract",
)  # fmt: skip
MOST_LINES = 300
MOST_PER_LEVEL = 9
EXPORTING = {"pipeline.contract.spec"}
"""One tree of dataclasses, which are used together, and light."""
ENTRY_POINTS = ROOT / "jobs"
"""Its files: one for every command."""
FACE = "pipeline"
"""Names what Python programs call, and imports it when they do."""

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in FLOORS
    for path in sorted((ROOT / package).rglob("*.py"))
}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports, also inside functions and for type checks."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name in FILES)


IMPORTS = {name: set(imported(path)) - {name} for name, path in FILES.items()}


def floor(module: str) -> int:
    return FLOORS.index(module.split(".")[0])


def room(module: str) -> str | None:
    """The room of a module of ``pipeline``; None for others."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] if package == "pipeline" and rest else None


def test_the_floors_are_those_of_this_page() -> None:
    found = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()}
    assert found == set(ROOMS)


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module: str) -> None:
    for other in IMPORTS[module]:
        assert floor(module) <= floor(other), f"{module} imports {other}"
        mine, theirs = room(module), room(other)
        if mine and theirs:
            assert ROOMS.index(mine) <= ROOMS.index(theirs), f"{module} imports {other}"


def test_no_import_runs_in_a_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_no_two_rooms_import_each_other(depth: int) -> None:
    """A circle of rooms may run through modules that form none."""

    def room_of(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    rooms: dict[str, set[str]] = {}
    for module, others in IMPORTS.items():
        beside = {room_of(other) for other in others} - {room_of(module)}
        siblings = {name for name in beside if name.count(".") == depth - 1}
        rooms.setdefault(room_of(module), set()).update(siblings)
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_model_knows_neither_ray_nor_the_pipeline() -> None:
    for module, path in FILES.items():
        if floor(module) == FLOORS.index("cvt"):
            tree = ast.walk(ast.parse(path.read_text()))
            tops = {name.split(".")[0] for node in tree for name in _names(node)}
            assert not tops & {"ray", "pipeline", "jobs"}, module


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize("path", [*FILES.values(), *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    "directory",
    sorted({path.parent for path in [*FILES.values(), *TESTS]}),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_level_can_be_seen_at_a_glance(directory: Path) -> None:
    """The entry points in ``jobs/`` are not counted: a command is a name that people type, side by
    side with the others, like the targets of a Makefile; the rooms beside them are."""
    rooms = [child for child in directory.iterdir() if (child / "__init__.py").exists()]
    files = [
        path
        for path in directory.glob("*.py")
        if path.name[:2] != "__" and path.name != "conftest.py" and directory != ENTRY_POINTS
    ]
    assert len(rooms) + len(files) <= MOST_PER_LEVEL


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name].name == "__init__.py"])
def test_a_room_says_what_it_is_for_and_what_it_offers(name: str) -> None:
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree), "the first line of a room says what it is for"
    offered = [node for node in tree.body if isinstance(node, ast.Assign)]
    listed = [ast.literal_eval(node.value) for node in offered if _is_all(node)]
    brought = [a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
               for a in n.names]  # fmt: skip
    assert sorted(brought) == sorted(listed[0] if listed else [])


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name].name == "__init__.py"])
def test_a_worker_loads_what_it_uses_and_not_a_whole_room(name: str) -> None:
    """Rooms of the pipeline export nothing: all of it is half a second of CPU in every process."""
    if floor(name) == FLOORS.index("pipeline") and name not in EXPORTING | {FACE}:
        assert not IMPORTS[name]


def test_the_face_imports_nothing_by_itself() -> None:
    for node in ast.parse(FILES[FACE].read_text()).body:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "typing.TYPE_CHECKING"):
            assert not [name for name in _names(node) if name.split(".")[0] in FLOORS]


def _is_all(node: ast.Assign) -> bool:
    return isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
