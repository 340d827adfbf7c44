"""What a message says to install can be installed: packages of an index, those that we tested."""

import re
import tomllib

import pytest

from tests.support.commands import REPOSITORY

HINT = re.compile(r"pip install ([\w -]+\w)")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SOURCES = [
    path for floor in ("cvt", "pipeline") for path in sorted((REPOSITORY / floor).rglob("*.py"))
]
HINTS = [(path.name, found[1]) for path in SOURCES for found in HINT.finditer(path.read_text())]


def test_there_are_some() -> None:
    assert len(HINTS) > 4


@pytest.mark.parametrize(("file", "packages"), HINTS)
def test_hints(file: str, packages: str) -> None:
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    known = {re.split(r"[\[>=]", one)[0] for one in (*extras, *PROJECT["dependencies"])}
    assert set(packages.split()) <= known, file
