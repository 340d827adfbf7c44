"""One run at a time per output: a lease, taken before anything is written and kept by a heartbeat.

A second copy of a job (a restarted pod, an impatient person) watches the first one's lease. If
the lease is renewed, it gives up; if it is not renewed for ``STALE_SECONDS`` by the second one's
clock, or if its holder was a process of this machine that is gone, it takes over. Clocks are never
compared.

Not every store refuses to create an object that exists (``If-None-Match``), so whoever has written
the lease waits a moment and reads back whose it is. The lease saves work; that no row is lost or
repeated does not depend on it (see ``open_run``).
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pipeline.contract.errors import DamagedFileError, RunError, UsageError, one_line
from pipeline.contract.layout import LEASE
from pipeline.contract.records import Record
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.objects.s3.refusals import is_of_the_moment
from pipeline.storage.store import Store

RENEW_SECONDS = 10.0
STALE_SECONDS = 45.0
LANDING_SECONDS = 1.0
"""The time in which a competitor's write that is under way lands."""

log = logging.getLogger(__name__)


@contextmanager
def usable(store: Store) -> Iterator[None]:
    """What asks the output for something first, and says what is wrong if it cannot.

    Raises:
        UsageError: the output cannot be used.
        RunError: at the moment.
    """
    try:
        yield
    except STORAGE_ERRORS as error:
        cannot = f"cannot use <output.uri> {store.uri}: {one_line(error)}"
        if is_of_the_moment(error):
            raise RunError(f"{cannot}; start the same command again later") from error
        raise UsageError(cannot) from error


@dataclass(frozen=True)
class Holder(Record):
    """Who holds a lease, as it says of itself."""

    owner: str = ""
    beat: int = 0
    renewed: str = ""
    """By its own clock, for people."""
    host: str = ""
    pid: int = 0
    process: str | None = None
    """See ``_process_identity``; None where there is no such thing."""

    def __str__(self) -> str:
        return one_line(
            f"host {self.host}, process {self.pid}, last sign of life {self.renewed}", limit=200
        )


@dataclass
class Lease:
    """Context manager; holds the lease of an output from enter to exit.

    Raises:
        UsageError: on enter, the output cannot be read or written.
        RunError: on enter, it is full or in trouble, or another run is at work; from ``check``, the
            lease was lost.
    """

    store: Store
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    renew_seconds: float = RENEW_SECONDS
    stale_seconds: float = STALE_SECONDS

    def __enter__(self) -> Self:
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._beat = 0
        with usable(self.store):  # the lease is the first thing that a run writes
            self._take()
        self._heart = threading.Thread(target=self._keep, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._heart.join()
        try:
            if self._is_ours(self._read()):
                self.store.remove_file(LEASE)
        except STORAGE_ERRORS as failure:  # must not hide the error that ends the run
            log.warning("cannot give back the lease, it will expire: %s", one_line(failure))

    def check(self) -> None:
        """Make sure that the lease is still held, before a step that two runs must not both take.

        Raises:
            RunError: it was lost.
        """
        if self._lost.is_set() or not self._is_ours(self._read()):
            raise RunError(
                f"another run has taken over {self.store.uri} while this one gave no sign of life; "
                "nothing is lost, let that one finish"
            )

    def _take(self) -> None:
        holder = self._read()
        if holder is None:
            is_sure = self.store.create(LEASE, self.store.json_bytes(self._content().to_dict()))
        else:
            self._wait_until_stale(holder)
            self._write()
            is_sure = False
        if not is_sure:
            time.sleep(LANDING_SECONDS)
        winner = self._read()
        if not self._is_ours(winner):
            raise RunError(_occupied(self.store, winner or Holder()))

    def _wait_until_stale(self, holder: Holder) -> None:
        """Return when the holder may be replaced; raise as soon as it shows a sign of life."""
        if not holder.owner or _is_dead_neighbour(holder):
            return
        log.info("waiting for a sign of life: %s", _occupied(self.store, holder))
        give_up = time.monotonic() + self.stale_seconds
        while time.monotonic() < give_up:
            time.sleep(min(1.0, self.stale_seconds / 10))
            seen = self._read()
            if seen is None:
                return
            if seen != holder:
                raise RunError(_occupied(self.store, seen))
        log.info("no sign of life for %.0f s: taking over", self.stale_seconds)

    def _keep(self) -> None:
        while not self._ended.wait(self.renew_seconds):
            try:
                if not self._is_ours(self._read()):
                    self._lost.set()
                    return
                self._write()
            except STORAGE_ERRORS as error:  # the storage may come back before the lease is stale
                log.warning("cannot renew the lease: %s", one_line(error))

    def _content(self) -> Holder:
        self._beat += 1
        return Holder(
            owner=self.owner,
            beat=self._beat,
            renewed=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            host=socket.gethostname(),
            pid=os.getpid(),
            process=_process_identity(os.getpid()),
        )

    def _write(self) -> None:
        self.store.write_json(LEASE, self._content().to_dict())

    def _read(self) -> Holder | None:
        """Who holds the lease now, None if nobody does. It is nobody in particular if the machine
        lost power before the lease reached the disk, or if that is not what a run writes."""
        try:
            return self.store.read_record(Holder, LEASE)
        except DamagedFileError:
            return Holder()

    def _is_ours(self, holder: Holder | None) -> bool:
        return holder is not None and holder.owner == self.owner


def _occupied(store: Store, holder: Holder) -> str:
    return (
        f"another run is at work on {store.uri} ({holder}); let it finish, or stop it and start "
        "again"
    )


def _process_identity(pid: int) -> str | None:
    """Identifies one process for ever: boot, pid namespace, pid, start time. None if it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if state == "Z" else f"{boot} {namespace} {pid} {fields[18]}"


def _is_dead_neighbour(holder: Holder) -> bool:
    """Whether the holder was a process that this one would see if it still ran, and does not."""
    ours, theirs = _process_identity(os.getpid()), holder.process
    if ours is None or theirs is None or ours.split()[:2] != theirs.split()[:2]:
        return False
    return bool(_process_identity(holder.pid) != theirs)
