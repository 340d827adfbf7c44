"""What a caller sees: nothing unless it asks, one place in a notebook, errors in its own words."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.contract.errors import RunError
from pipeline.monitoring.log import OURS, is_displayed
from pipeline.runs.python.shown import as_in_python
from pipeline.stages.watching.reading import Reading

LOG = logging.getLogger("pipeline.runs.run")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """At the end ours are as they were."""
    ours = [logging.getLogger(name) for name in OURS]
    before = [(one.level, one.handlers[:]) for one in ours]
    yield
    for one, (level, handlers) in zip(ours, before, strict=True):
        one.setLevel(level)
        one.handlers[:] = handlers


@pytest.fixture
def no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has set up none."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


class Cell:
    """Stands in for IPython: what is below a cell."""

    def __init__(self) -> None:
        self.text = ""

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> "Cell":
        assert raw
        assert display_id
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        [self.text] = bundle.values()


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    cell = Cell()
    modules: dict[str, Any] = {name: ModuleType(name) for name in ("IPython", "IPython.display")}
    modules["IPython"].get_ipython = lambda: SimpleNamespace(kernel=object())
    modules["IPython.display"].display = cell.display
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return cell


def reading(images: int) -> Reading:
    return Reading({"inferred": images}, 2.0, 10, 0)


def say() -> None:
    LOG.info("<model.dtype> auto: float32")
    for images in (2, 4):
        LOG.info("%s", reading(images))
    LOG.warning("slow at https://user:secret@host/a?sig=1")


@pytest.mark.usefixtures("no_logging")
def test_nothing_is_printed_unless_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with as_in_python(str, progress=False):
        say()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("no_logging")
def test_progress_is_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with as_in_python(lambda place: place.split(".")[1], progress=True):
        say()
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.splitlines() == [
        "dtype auto: float32",
        "2 of 10 images, 2.0/s, 0 failed, 4 s left",
        "4 of 10 images, 2.0/s, 0 failed, 3 s left",
        "slow at https://host/a",
    ]


@pytest.mark.usefixtures("no_logging")
def test_in_a_notebook_a_reading_takes_the_place_of_the_last(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    with as_in_python(str, progress=True):
        say()
        LOG.info("%s", reading(6))
    assert capsys.readouterr() == ("", "")
    assert cell.text.splitlines() == [
        "model.dtype auto: float32",
        "4 of 10 images, 2.0/s, 0 failed, 3 s left",
        "slow at https://host/a",
        "6 of 10 images, 2.0/s, 0 failed, 2 s left",
    ]
    assert "\x1b" not in cell.text


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize(("level", "messages"), [("INFO", 4), ("WARNING", 1)])
def test_the_log_of_the_program_gets_what_it_asked_for(
    progress: bool, level: str, messages: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level), as_in_python(str, progress=progress):
        say()
    assert len(caplog.messages) == messages
    assert logging.getLogger("pipeline").propagate


@pytest.mark.parametrize("progress", [False, True])
def test_loggers_are_left_as_they_were(progress: bool) -> None:
    with as_in_python(str, progress=False):
        before = {name: vars(logging.getLogger(name)).copy() for name in OURS}
    handlers = {name: logging.getLogger(name).handlers[:] for name in OURS}
    for _ in range(2):
        with as_in_python(str, progress=progress):
            pass
    for name in OURS:
        assert {**vars(logging.getLogger(name)), "_cache": 0} == {**before[name], "_cache": 0}
        assert logging.getLogger(name).handlers == handlers[name]


def test_a_display_draws_over_no_other_programs_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, write=len, flush=len))
    with as_in_python(str, progress=False):
        assert not is_displayed()
    with as_in_python(str, progress=True):
        assert is_displayed()


def test_errors_spell_settings_as_the_caller_does() -> None:
    with pytest.raises(RunError) as found, as_in_python(lambda place: "dtype", progress=False):
        raise RunError("<model.dtype> is wrong")
    assert str(found.value) == "dtype is wrong"
