"""What a test needs beside its own process: Ray, or a server. ``make check`` leaves those out.

The marks follow from the fixtures where they can, and stand in the module otherwise. Whoever
forgets one is told: in a test without the mark, neither of the two can be started.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

FIXTURES = {
    "ray": {"ray_local", "ray_of_its_own"},
    "server": {"s3_server", "moto", "azurite", "fake_gcs", "cloud"},
}
"""By mark, the fixtures that all others of its kind ask for."""

_withheld: set[str] = set()


def mark(item: pytest.Item) -> None:
    """Add the marks that follow from the fixtures of a test."""
    for name, fixtures in FIXTURES.items():
        if fixtures.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(name)


def demand(name: str) -> None:
    """To be called by what is about to start Ray or a server."""
    if name in _withheld:
        raise RuntimeError(f"this test needs the mark pytest.mark.{name}")


@contextmanager
def withhold(item: pytest.Item) -> Iterator[None]:
    """Keep from a test what it is not marked for, in this process and in its children."""
    lacking = {name for name in FIXTURES if not item.get_closest_marker(name)}
    _withheld.update(lacking)
    with pytest.MonkeyPatch.context() as patch:
        if "ray" in lacking:
            patch.setenv("RAY_TMPDIR", "/dev/null/the test needs pytest.mark.ray")
            if ray := sys.modules.get("ray"):  # which an earlier test may have started
                patch.setattr(ray, "is_initialized", lambda: False)
        yield
    _withheld.clear()
