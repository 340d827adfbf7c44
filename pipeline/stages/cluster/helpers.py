"""The processes of Ray's that a run on one machine has no use for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_node: Any = import_module("ray._private.node").Node  # its types are incomplete
_UNUSED = (
    "start_api_server",  # a dashboard without pages, which counts how Ray is used
    "start_log_monitor",  # sends to the driver what workers print, which only --debug shows
    "start_monitor",  # the autoscaler, which knows no other machine
)


@contextmanager
def without_helpers() -> Iterator[None]:
    """A Ray that is started inside saves the second of CPU time that each of these takes to come
    up, beside our workers. Ray has no option for them; a Ray whose methods have other names starts
    them all."""
    started = {name: getattr(_node, name) for name in _UNUSED if hasattr(_node, name)}
    for name in started:
        setattr(_node, name, _nothing)
    try:
        yield
    finally:
        for name, method in started.items():
            setattr(_node, name, method)


def _nothing(*_: object, **__: object) -> None:
    """In place of a method that starts a process."""
