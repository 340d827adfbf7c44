"""How the driver asks workers to save and end, and how they say that they did."""

from __future__ import annotations

import time

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_exists,
    _internal_kv_put,
)

_ASKED, _STOPPED = "cvt-batch-stop-", "cvt-batch-stopped-"
_POLL_SECONDS = 0.05


def ask_to_stop(run_id: str, patience: float) -> bool:
    """Ask the workers of a training; whether they have saved in time, within so many seconds."""
    _internal_kv_put(_ASKED + run_id, b"1")
    give_up = time.monotonic() + patience
    while not (stopped := _internal_kv_exists(_STOPPED + run_id)) and time.monotonic() < give_up:
        time.sleep(_POLL_SECONDS)
    return bool(stopped)


def is_asked_to_stop(run_id: str) -> bool:
    """Whether the driver has asked."""
    return bool(_internal_kv_exists(_ASKED + run_id))


def say_stopped(run_id: str) -> None:
    """Tell the driver that all is saved."""
    _internal_kv_put(_STOPPED + run_id, b"1")


def forget(run_id: str) -> None:
    """Take both back, for the next start in the same Ray."""
    for mark in (_ASKED, _STOPPED):
        _internal_kv_del(mark + run_id)
