"""Processes found by what they do, to be killed without a word."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

PATIENCE_SECONDS = 300.0

T = TypeVar("T")


def descendants(root: int) -> dict[int, str]:
    """Process ids below ``root`` with their command lines; Ray's workers write there what they
    do, as in ``ray::MapBatches(decode_block)``."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(directory.name))
    found, left = {}, [root]
    while left:
        for pid in children.get(left.pop(), []):
            found[pid] = title(pid)
            left.append(pid)
    return found


def title(pid: int) -> str:
    """Its command line, or what it calls itself; empty if it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace").strip()


def below(root: int, title: str) -> list[int]:
    """The processes below ``root`` whose command line contains ``title``, oldest first."""
    return sorted(pid for pid, text in descendants(root).items() if title in text)


def kill_one(root: int, title: str) -> int:
    """SIGKILL a process below ``root`` as soon as one does what ``title`` says; its id."""
    pid = min(wait_until(lambda: below(root, title), title))
    kill(pid)
    return pid


def kill(pid: int) -> None:
    """SIGKILL; a process that has ended meanwhile is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], T], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """The first true value of ``condition``; an error that says ``what`` was waited for."""
    give_up = time.monotonic() + patience
    asked = time.monotonic()
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"no {what} within {patience:.0f} s")
        # What is waited for wants the core, too.
        time.sleep(max(0.02, 2 * (time.monotonic() - asked)))
        asked = time.monotonic()
    return value
