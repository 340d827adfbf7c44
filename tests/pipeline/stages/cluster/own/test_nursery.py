"""Workers that are forks, with scripts in the place of Ray's."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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

    def launch(self, job: str = nursery.FIRST_JOB) -> tuple[int, list[object]]:
        """Start a worker; its launcher's exit code, and what the worker says."""
        said = self.directory / "said"
        command = [launcher.__file__, self.address, str(self.directory / "worker.py"), str(said)]
        env = {"SAID": "\udc80 odd", "RAY_JOB_ID": job, "RAY_RAYLET_PID": str(self.process.pid)}
        done = subprocess.run([sys.executable, "-I", "-S", *command], env=os.environ | env)
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
