"""Settings describe themselves, and messages call them by places that exist."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest

from cvt.config import ACTIVATIONS
from cvt.inference.optimize import RUNTIMES
from cvt.layers.heads import POOLINGS, SCORES
from cvt.preprocessing import processor
from pipeline.contract.errors import JobError, UsageError
from pipeline.contract.spec import (
    SECTIONS,
    SETTINGS,
    Activation,
    CompactSpec,
    CorrectionsSpec,
    DecodeMode,
    FinetuneSpec,
    Pooling,
    RelabelSpec,
    Runtime,
    Scores,
    check_settings,
    setting,
    settings,
)

ROOT = Path(__file__).parents[3]
OF_JOBS = (
    *settings(RelabelSpec, "relabel"), *settings(FinetuneSpec, "finetune"),
    *settings(CompactSpec, "compact"), *settings(CorrectionsSpec, "corrections"),
)  # fmt: skip
PLACES = {*SETTINGS, *(one.place for one in OF_JOBS)}
FLAGS_IN_ROWS = {
    "pipeline/sources/doors.py", "pipeline/storage/files.py", "pipeline/storage/web/http.py"
}  # fmt: skip
"""What is wrong with an image is said in its row, which may be read far from any command."""
OTHERS = {
    "pipeline/monitoring/page.py", "pipeline/monitoring/model/charts.py",
    "pipeline/model/loaded.py", "pipeline/runs/computing/version.py",
}  # fmt: skip
"""A style sheet's variables, a flag of jobs.embed that is not a setting, a whole other command."""


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    knives: int | None = setting(None, "how many", at_least=1)
    fuel: Literal["gas", "wood"] | None = setting(None, "what burns")
    spoons: float = setting(1.5, "how much", at_least=0.5)
    name: str = "not a setting"


def test_a_setting_knows_its_field() -> None:
    knives, fuel, spoons = settings(Kitchen, "kitchen")
    assert (knives.place, knives.flag, knives.dest) == ("kitchen.knives", "--knives", "knives")
    assert (knives.type, knives.is_optional, knives.default) == (int, True, None)
    assert (fuel.choices, fuel.is_optional) == (("gas", "wood"), True)
    assert (spoons.type, spoons.is_optional, spoons.choices) == (float, False, ())
    assert Kitchen().spoons == 1.5


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"knives": 0}, "<kitchen.knives> is 0; it must be 1 or more"),
        ({"fuel": "oil"}, "<kitchen.fuel> is 'oil'; accepted: gas, wood"),
        ({"spoons": float("nan")}, "<kitchen.spoons> is nan; it must be 0.5 or more"),
    ],
)
def test_a_setting_refuses_what_it_does_not_accept(wrong: dict[str, object], problem: str) -> None:
    check_settings(Kitchen(), "kitchen")
    check_settings(Kitchen(knives=1, fuel="wood", spoons=0.5), "kitchen")
    with pytest.raises(UsageError, match=re.escape(problem)):
        check_settings(Kitchen(**wrong), "kitchen")  # type: ignore[arg-type]


def test_every_field_of_a_run_is_a_setting() -> None:
    assert list(SETTINGS) == [f"{name}.{field}" for name, spec in SECTIONS.items()
                              for field in spec.__dataclass_fields__]  # fmt: skip
    assert all(one.about.help for one in SETTINGS.values())
    flags = [one.flag for one in SETTINGS.values()]
    assert len(set(flags)) == len(flags)


def test_vocabularies_are_those_of_the_network() -> None:
    """Stated once more because cvt imports torch, for which a command line does not wait."""
    assert get_args(Activation) == ACTIVATIONS
    assert get_args(Pooling) == POOLINGS
    assert get_args(Scores) == SCORES
    assert get_args(Runtime) == RUNTIMES
    assert get_args(DecodeMode) == (*get_args(processor.DecodeMode), "gpu")


def test_an_error_spells_every_place() -> None:
    for place in PLACES:
        error = JobError(f"a <{place}> and <some.other> thing")
        assert str(error) == f"a {place} and <some.other> thing"
        assert error.spelled(str.upper) == f"a {place.upper()} and <some.other> thing"


def _texts(path: Path) -> Iterator[str]:
    """String literals, but for docstrings."""
    tree = ast.parse(path.read_text())
    explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in explained:
            yield str(node.value)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_messages_name_places_that_exist(path: Path) -> None:
    for text in _texts(path):
        assert {*re.findall(r"<([a-z]+\.[a-z_]+)>", text)} <= PLACES, text
        if " " in text and path.relative_to(ROOT).as_posix() not in FLAGS_IN_ROWS | OTHERS:
            assert not re.search(r"(?<![\w-])--[a-z]", text), f"<place> instead of a flag: {text}"
