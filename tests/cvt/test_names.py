"""The names of the package, which are loaded when somebody asks for them."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import cvt


def test_a_name_is_what_its_home_has() -> None:
    for name in cvt.__all__:
        assert getattr(cvt, name) is getattr(import_module(cvt._HOMES[name]), name)
    assert set(cvt.__all__) <= set(dir(cvt))


def test_type_checkers_are_told_the_same() -> None:
    imports = [n for n in ast.walk(ast.parse(Path(cvt.__file__).read_text()))
               if isinstance(n, ast.ImportFrom)]  # fmt: skip
    assert {alias.name: node.module for node in imports for alias in node.names} == cvt._HOMES


def test_all_of_them_at_once() -> None:
    found: dict[str, object] = {}
    exec("from cvt import *", found)
    assert set(cvt.__all__) <= set(found)


def test_its_modules_are_there_too() -> None:
    assert cvt.config is import_module("cvt.config")


@pytest.mark.parametrize("name", ["CvtForDetection", "_private", "__wrapped__"])
def test_a_name_that_there_is_not(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'cvt' has no attribute '{name}'"):
        getattr(cvt, name)
