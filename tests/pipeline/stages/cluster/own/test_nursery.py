"""Workers that are forks, with scripts in the place of Ray's."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.stages.cluster.own import launcher, nursery
from tests.support.commands import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets without files")

WORKER = """
import json, os, sys
told = [os.getpid(), os.getppid(), sys.argv[1:], os.environ.get("SAID"), "csv" in sys.modules]
open(sys.argv[1], "x").write(json.dumps(told))
sys.exit(3)
"""
RAYLET = """
import subprocess, sys
nursery = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
print(nursery.pid, flush=True)
sys.stdin.read()
"""
NURSERY = """
from pipeline.stages.cluster.own import nursery
nursery.MODULES, nursery.LOOK_SECONDS = ("no_such_module", "csv"), 0.05
nursery.main()
"""


class Raylet:
    """What starts a nursery and its launchers."""

    def __init__(self, directory: Path) -> None:
        self.address, self.directory = f"test-{os.getpid()}-{directory.name}", directory
        command = [sys.executable, "-c", RAYLET, NURSERY, self.address, *sys.path]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.nursery = int(self.process.stdout.readline())
        directory.joinpath("worker.py").write_text(WORKER)

    def environment(self, job: str = nursery.FIRST_JOB) -> dict[str, str]:
        """Of a worker."""
        own = {"SAID": "\udc80 odd", "RAY_JOB_ID": job, "RAY_RAYLET_PID": str(self.process.pid)}
        return os.environ | own

    def ask(self, request: object) -> bytes:
        """The answer to a launcher that says this."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(f"\0{self.address}")
            asking.sendall(json.dumps(request).encode())
            asking.shutdown(socket.SHUT_WR)
            return asking.recv(1)

    def launch(self, job: str = nursery.FIRST_JOB) -> tuple[int, list[object]]:
        """Start a worker; its launcher's exit code, and what the worker says."""
        said = self.directory / "said"
        command = [launcher.__file__, self.address, str(self.directory / "worker.py"), str(said)]
        env = self.environment(job)
        done = subprocess.run([sys.executable, "-I", "-S", *command], env=env)
        return done.returncode, json.loads(_written(said))


def _written(file: Path) -> str:
    while not (file.exists() and file.read_text()):
        time.sleep(0.02)
    return file.read_text()


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[Raylet]:
    raylet = Raylet(tmp_path)
    while f"@{raylet.address}" not in Path("/proc/net/unix").read_text():
        time.sleep(0.02)
    yield raylet
    raylet.process.kill()
    raylet.process.communicate()


def test_a_worker_is_a_fork_that_has_imported_what_there_is(raylet: Raylet) -> None:
    code, (pid, parent, arguments, said, is_imported) = raylet.launch()
    assert (code, parent, is_imported) == (0, raylet.nursery, True)
    assert (arguments, said) == ([str(raylet.directory / "said")], "\udc80 odd")
    assert pid != raylet.nursery
    raylet.directory.joinpath("said").unlink()
    assert raylet.launch()[1][1] == raylet.nursery  # which outlives its worker


def test_a_worker_of_another_job_is_none(raylet: Raylet) -> None:
    code, (_, parent, _, said, is_imported) = raylet.launch(job="02000000")
    assert (code, parent, said, is_imported) == (3, os.getpid(), "\udc80 odd", False)


def test_without_a_nursery_the_launcher_becomes_the_worker(raylet: Raylet) -> None:
    raylet.address = "nobody"
    assert raylet.launch()[0] == 3


def test_it_ends_with_raylet(raylet: Raylet) -> None:
    raylet.process.send_signal(signal.SIGKILL)
    raylet.process.wait()
    while Path(f"/proc/{raylet.nursery}").exists():
        time.sleep(0.02)


def test_one_that_starts_after_the_end_of_raylet_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NURSERY, f"test-{os.getpid()}-late", *sys.path]
    gone = {"RAY_RAYLET_PID": str(os.getpid() + 1)}
    subprocess.run(command, cwd=REPOSITORY, env=os.environ | gone, check=True, timeout=300)


def test_without_sockets_it_only_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """``raylet`` would end with it."""
    parents, waits = iter([7, 7, 1]), list[float]()
    monkeypatch.setenv("RAY_RAYLET_PID", "7")
    monkeypatch.setattr(sys, "argv", ["nursery.py", "somewhere"])
    monkeypatch.setattr(socket, "socket", Mock(side_effect=PermissionError))
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(time, "sleep", waits.append)
    nursery.main()
    assert waits == [nursery.LOOK_SECONDS] * 2


def test_odd_requests_cost_no_worker(raylet: Raylet) -> None:
    """Nor does a score that cannot be set, as where /proc is read-only."""
    assert raylet.ask(1) == b""
    said = raylet.directory / "said"
    words = [str(raylet.directory / "worker.py"), str(said)]
    assert raylet.ask([words, raylet.environment(), "no number"]) == b"1"
    assert json.loads(_written(said))[1] == raylet.nursery


def test_who_listens_in_its_place_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    address, user, heard = f"test-{os.getpid()}-another", os.getuid(), list[bytes]()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)

    def listen() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as told:
            heard.append(told.read())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen()
        other = threading.Thread(target=listen)
        other.start()
        assert not launcher._is_forked(address, ["worker.py"])
        other.join()
    assert heard == [b""]


@pytest.mark.parametrize("cut", [None, 20])
def test_nobody_else_is_listened_to(monkeypatch: pytest.MonkeyPatch, cut: int | None) -> None:
    asked = json.dumps([["worker.py"], {}, "0"])
    for user in [os.getuid(), os.getuid() + 1]:
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        here, there = socket.socketpair()
        with here, there:
            here.sendall(asked[:cut].encode())
            here.shutdown(socket.SHUT_WR)
            is_understood = nursery._asked(there) is not None
        assert is_understood == (cut is None and user == os.geteuid())
