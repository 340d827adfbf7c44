"""The process of which workers are forks.

    python nursery.py SOCKET PATH...

A worker of Ray's spends three seconds of CPU time on imports, and a run on one machine has four or
five of them. Here they are imported once::

    raylet ──starts──► nursery ──forks──► worker, worker, ...
       └────starts──► launcher ──arguments, environment──┘

``raylet`` starts it in the place of an agent that a run has no use for, and it ends with it. It has
no thread of Python's own and no connection, so that nothing is lost or locked in a fork.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

READ_SECONDS = 10.0
LOOK_SECONDS = 2.0
"""Between two looks whether ``raylet`` still lives."""
MODULES = ("ray.data", "pipeline.stages.graph")
"""What workers import, with all that these import."""
FIRST_JOB = "01000000"
"""As Ray calls the first driver that connects, which is ours."""
READ_ONCE = ("RAY_JOB_ID", "RAY_RAYLET_PID")
"""Variables that workers have, and that Ray reads when it is imported, and never again."""
OOM_SCORE = "/proc/self/oom_score_adj"
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of who has connected."""

Worker = tuple[list[str], dict[str, str], str]
"""Its script and arguments, its environment, and how much sooner than others it is to end where
there is no memory, as ``raylet`` has told the launcher."""


def main() -> None:
    """Fork a worker for each launcher, as long as ``raylet`` lives, which ends where this does. So
    what fails is waited out: launchers that get no answer become workers themselves."""
    address, *path = sys.argv[1:]
    raylet = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())  # which may be gone by now
    try:
        _fork_workers(address, path, raylet)
    except Exception:  # noqa: BLE001  # no such sockets here, or no memory
        traceback.print_exc()
    while os.getppid() == raylet:
        time.sleep(LOOK_SECONDS)


def _fork_workers(address: str, path: list[str], raylet: int) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")  # no file: nothing is left behind
        listener.listen(socket.SOMAXCONN)
        listener.settimeout(READ_SECONDS)
        sys.path[:] = path
        os.environ.update(zip(READ_ONCE, (FIRST_JOB, str(raylet)), strict=True))
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray tells workers; actors decide anew
        _load()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets those that have ended
        while os.getppid() == raylet:
            if select.select([listener], [], [], LOOK_SECONDS)[0]:
                with suppress(Exception):  # no memory for a fork, a launcher that is gone
                    _serve(listener)


def _load() -> None:
    for module in MODULES:
        try:
            import_module(module)
        except Exception:  # noqa: BLE001  # ``raylet`` would end with this; workers will say it
            traceback.print_exc()
    gc.freeze()  # a collection would write to, and so copy, all that is shared


def _serve(listener: socket.socket) -> None:
    """Fork one worker. Who gets no answer does without."""
    connection, _ = listener.accept()
    with connection:
        worker = _asked(connection)
        if worker is None or not _fits(worker[1]):
            return
        if not os.fork():
            listener.close()
            connection.close()
            _become(*worker)
        connection.send(b"1")


def _asked(connection: socket.socket) -> Worker | None:
    """What a launcher says; None for another user, or what is cut short."""
    connection.settimeout(READ_SECONDS)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(credentials)[1] != os.getuid():
        return None
    try:
        with connection.makefile("rb") as request:
            words, environment, score = json.load(request)
    except (OSError, ValueError):
        return None
    return words, environment, score


def _fits(environment: dict[str, str]) -> bool:
    """Whether Ray was imported with what a worker with this environment has to know."""
    return all(environment.get(name) == os.environ[name] for name in READ_ONCE)


def _become(words: list[str], environment: dict[str, str], score: str) -> NoReturn:
    """Go on as Ray's worker."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        with suppress(OSError):  # /proc is read-only in some containers
            Path(OOM_SCORE).write_text(score)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # nobody else is left to say it
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


if __name__ == "__main__":
    main()
