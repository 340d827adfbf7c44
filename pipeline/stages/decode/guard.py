"""Decoding that no image can stop: neither one that takes for ever, nor one that crashes a decoder.

The first try of a task decodes in the task's own process. An image that takes longer than allowed
ends that process, by a signal that reaches it in whatever C code it is; a crash ends it as well.
Ray then starts the task again, and from the second try on images are decoded in a process beside
the task's. That one may end, and is replaced; the image's row says why.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Protocol, Self

from ray import cloudpickle
from ray._private.worker import WORKER_MODE, global_worker

from pipeline.contract.errors import NOBODYS_FAULT, DecodeError, ItemError, RunError
from pipeline.stages.decode.image import Found, failure, read_image
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.watching.progress import Reporter
from pipeline.storage.filesystems import WorkerEnvironment

START_SECONDS = 300
"""For a process to load its libraries."""
_MEMORY = "/proc/self/statm"
_BYTES_PER_PIXEL, _BYTES = 32, 2**30
"""Memory that an image may take in a process of its own."""


class Decoder(Protocol):
    """Decodes images one by one."""

    def read(self, data: bytes, *, with_thumbnail: bool) -> Found:
        """As ``read_image``.

        Raises:
            DecodeError: it cannot be decoded.
        """


@contextmanager
def decoder(settings: DecodeSettings) -> Iterator[Decoder]:
    """What decodes the images of a task: in this process, or, from its second try on, beside it."""
    attempt = _attempt()
    if not attempt:
        yield Here(settings, ends=attempt is not None)
        return
    settings.reporter.say(
        f"try {attempt + 1} of a decode task whose process ended: an image may have taken longer "
        f"than {settings.max_seconds:g} s or crashed a decoder; decoding in processes of their own"
    )
    with Beside(settings) as beside:
        yield beside


def _attempt() -> int | None:
    """Which try of its task this is, from 0 on; None outside of Ray's workers."""
    worker: Any = global_worker
    if worker.mode != WORKER_MODE:
        return None
    return int(worker.core_worker.get_current_task_attempt_number())


@contextmanager
def _ending_after(seconds: float) -> Iterator[None]:
    """End this process should the body take longer; nothing can handle or delay that."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Here:
    """A ``Decoder`` in this process."""

    def __init__(self, settings: DecodeSettings, *, ends: bool) -> None:
        """``ends``: whether the process ends if an image takes too long."""
        self._settings, self._ends = settings, ends

    def read(self, data: bytes, *, with_thumbnail: bool) -> Found:
        if not self._ends:
            return read_image(data, self._settings, with_thumbnail=with_thumbnail)
        with _ending_after(self._settings.max_seconds):
            return read_image(data, self._settings, with_thumbnail=with_thumbnail)


class Beside:
    """A ``Decoder`` in another process, which is replaced when an image ends it."""

    def __init__(self, settings: DecodeSettings) -> None:
        alone = replace(
            settings, environment=WorkerEnvironment({}), known_contents=None, reporter=Reporter()
        )
        self._settings = cloudpickle.dumps(alone)
        self._max_seconds = settings.max_seconds
        self._started: tuple[subprocess.Popen[bytes], Connection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._started is not None:
            self._end(*self._started)

    def read(self, data: bytes, *, with_thumbnail: bool) -> Found:
        answer = self._ask(data, with_thumbnail)
        if answer == -signal.SIGKILL:  # by somebody, or for want of memory, maybe of others
            answer = self._ask(data, with_thumbnail)
        if isinstance(answer, Found):
            return answer
        raise self._why(answer) if isinstance(answer, int) else answer

    def _ask(self, data: bytes, with_thumbnail: bool) -> Found | ItemError | int:
        """The answer of the other process, or the code with which it ended."""
        process, connection = self._started = self._started or self._start()
        try:
            connection.send((data, with_thumbnail))
            answer: Found | ItemError = connection.recv()
        except (EOFError, ConnectionError):
            self._started = None
            return self._end(process, connection)
        return answer

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = Pipe()
        command = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as m; m.serve()"
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        with suppress(ConnectionError):
            ours.send(self._settings)
            if ours.poll(START_SECONDS):
                ours.recv()
                return process, ours
        raise RunError(
            f"a process to decode in did not start (exit code {self._end(process, ours)}); start "
            "the same command again"
        )

    def _end(self, process: subprocess.Popen[bytes], connection: Connection) -> int:
        """Its exit code."""
        connection.close()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1)  # it may be about to end by itself, and with a reason
        process.kill()
        return process.wait()

    def _why(self, code: int) -> DecodeError:
        if code == -signal.SIGALRM:
            return DecodeError("timeout", f"it took longer than {self._max_seconds:g} s to decode")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return DecodeError("corrupt", f"the decoder's process ended on it: {how}")


def serve() -> None:
    """Decode what comes through the connection that is named on the command line, until it closes.
    For the process of ``Beside``."""
    with Connection(int(sys.argv[1])) as connection:
        settings: DecodeSettings = cloudpickle.loads(connection.recv())
        _limit_memory(settings.max_pixels)
        connection.send(None)
        with suppress(EOFError):
            while True:
                data, with_thumbnail = connection.recv()
                with _ending_after(settings.max_seconds):
                    answer: Found | ItemError
                    try:
                        answer = read_image(data, settings, with_thumbnail=with_thumbnail)
                    except NOBODYS_FAULT:
                        raise
                    except BaseException as error:  # noqa: BLE001  # as in the task
                        answer = failure(error)
                connection.send(answer)


def _limit_memory(max_pixels: int) -> None:
    if not os.path.exists(_MEMORY):  # not on Linux
        return
    with open(_MEMORY) as file:
        taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = taken + _BYTES + _BYTES_PER_PIXEL * max_pixels
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
