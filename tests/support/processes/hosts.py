"""Machines of a network of their own: namespaces of this one, with addresses, disks and wires."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

from ray.job_submission import JobSubmissionClient

from tests.support.commands import REPOSITORY
from tests.support.processes import process, victims
from tests.support.processes.ray_cluster import SCRIPTS, START_SECONDS

ENV = {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",  # what a job prints is seen when it does
    "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    # As in a Ray that a run starts itself: workers that are idle stay, for they take long to start.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}
"""Of all hosts: they know nothing of the storage."""
NOBODY = "02:00:00:00:00:01"
"""The address of no network card: what is sent to it is lost, and nobody is told."""
_ON_HOST = """
set -e
mount --make-rprivate /
for kept in "$2" "$3" "$4"; do case "$kept" in /tmp/*)
    mkdir -p "$1$kept"; mount --bind "$kept" "$1$kept" ;;
esac; done
mount --rbind "$1/tmp" /tmp
for hidden in cvt pipeline jobs; do mount --bind /tmp/empty "$2/$hidden"; done
shift 4
exec "$@"
"""
"""sh: a disk, the repository, Python, its library, a command. What the host sees of this machine is
what is installed; /tmp and what is below its home are its own, and the code is not there."""


def why_not() -> str | None:
    """What this machine lacks for them."""
    if shutil.which("ip") is None:
        return "there is no ip (of iproute2)"
    name = f"cvt-try-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces: {made.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


@dataclass(frozen=True)
class Host:
    """A machine with an address, a wire to the network's switch, and its own /tmp and home."""

    name: str
    address: str
    wire: str
    """The end that is plugged into the switch."""
    disk: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, command: Sequence[str | Path], *, log: str, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a command on the host, with its output in the file ``log`` of its disk."""
        inside = ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", _ON_HOST]
        roots = (self.disk, REPOSITORY, sys.prefix, sys.base_prefix)
        home = {"HOME": "/tmp/home", "TMPDIR": "/tmp"}
        started = process.start(
            [*inside, "host", *roots, *command], log=self.disk / log, env={**env, **home}
        )
        self.started.append(started)
        return started

    def runs(self, what: str) -> bool:
        """Whether the title of one of its processes says so."""
        pids = _ip("netns", "pids", self.name).split()
        return any(what in victims.title(int(pid)) for pid in pids)

    def kill_all(self) -> None:
        """SIGKILL whatever runs on the host."""
        while pids := _ip("netns", "pids", self.name).split():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for started in self.started:
            started.kill()
            started.wait()

    def cut_off(self, address: str) -> None:
        """What it sends to an address is lost on the way, as behind a broken switch."""
        where = ("dev", "eth0", "nud", "permanent")
        _ip("-n", self.name, "neighbour", "replace", address, "lladdr", NOBODY, *where)

    def reconnect(self, address: str) -> None:
        """The reverse of ``cut_off``."""
        _ip("-n", self.name, "neighbour", "delete", address, "dev", "eth0")


class Network:
    """Hosts on one switch, to which this machine is plugged as well, under ``address``. To be used
    as a context manager; afterwards nothing is left of them."""

    def __init__(self, hosts: int) -> None:
        mark = secrets.token_hex(3)
        prefix = f"10.213.{_free_subnet()}"
        self.address = f"{prefix}.1"
        self.directory = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))
        self._switch = f"cvt{mark}"
        self.hosts = [
            Host(f"cvt-{mark}-{n}", f"{prefix}.{10 + n}", f"cv{mark}{n}", self.directory / str(n))
            for n in range(hosts)
        ]

    def __enter__(self) -> Network:
        try:
            _ip("link", "add", self._switch, "type", "bridge")
            _ip("address", "add", f"{self.address}/24", "dev", self._switch)
            _ip("link", "set", self._switch, "up")
            for host in self.hosts:
                self._plug_in(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _plug_in(self, host: Host) -> None:
        for name in ("tmp/home", "tmp/empty"):
            (host.disk / name).mkdir(parents=True)
        _ip("netns", "add", host.name)
        _ip("link", "add", host.wire, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("link", "set", host.wire, "master", self._switch, "up")
        _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host.name, "link", "set", device, "up")

    def close(self) -> None:
        """Kill what runs on the hosts, and remove hosts, wires, switch and disks, whatever is left
        of them."""
        for host in self.hosts:
            with suppress(subprocess.CalledProcessError):
                host.kill_all()
            for what in (("link", "delete", host.wire), ("netns", "delete", host.name)):
                with suppress(subprocess.CalledProcessError):
                    _ip(*what)
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self._switch)
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_subnet() -> int:
    """The third number of addresses that nobody on this machine has."""
    taken = _ip("-brief", "address")
    numbers = [n for n in range(1, 255) if f"10.213.{n}." not in taken]
    return SystemRandom().choice(numbers)


def _ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Cluster:
    """Ray on the hosts, with a CPU each; the first is the head."""

    def __init__(self, hosts: list[Host]) -> None:
        head = hosts[0].address
        self.address = f"http://{head}:8265"
        dashboard = (f"--dashboard-host={head}", "--dashboard-port=8265")
        self._start(hosts[0], "--head", "--port=6379", *dashboard)
        victims.wait_until(self._is_up, "head", START_SECONDS)
        for host in hosts[1:]:
            self._start(host, f"--address={head}:6379")
        victims.wait_until(lambda: len(self._nodes()) == len(hosts), "hosts", START_SECONDS)

    def _start(self, host: Host, *options: str) -> None:
        host.start(
            [
                *(SCRIPTS / "ray", "start", "--block", "--disable-usage-stats", "--num-cpus=1"),
                *(f"--node-ip-address={host.address}", f"--object-store-memory={128 << 20}"),
                *("--min-worker-port=0", "--max-worker-port=0", *options),
            ],
            log="ray.log",
            env=ENV,
        )

    @property
    def client(self) -> JobSubmissionClient:
        token = {"Authorization": f"Bearer {ENV['RAY_AUTH_TOKEN']}"}
        return JobSubmissionClient(self.address, headers=token)

    def _is_up(self) -> bool:
        try:
            return bool(self.client)
        except ConnectionError:
            return False

    def _nodes(self) -> list[str]:
        answer = self.client._do_request("GET", "/api/v0/nodes")
        nodes = answer.json()["data"]["result"]["result"]
        return [node["node_ip"] for node in nodes if node["state"] == "ALIVE"]

    def submit(self, environment: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
        """``ray job submit`` of a command of ``jobs``, whose log it prints.

        Args:
            environment: of the job: settings of the storage, as ``write_environment`` has them.
        """
        return subprocess.Popen(
            [
                *(str(SCRIPTS / "ray"), "job", "submit", "--address", self.address),
                *("--working-dir", str(REPOSITORY), "--runtime-env", str(environment)),
                *("--", "python", "-m", f"jobs.{name}", *arguments),
            ],
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def write_environment(path: Path, variables: Mapping[str, str]) -> Path:
    """A runtime environment for a job: variables, and our code without what it does not need."""
    excludes = [".git", ".venv", "tests", "docs", "build"]
    env_vars = {**variables, "AWS_EC2_METADATA_DISABLED": "true"}
    path.write_text(json.dumps({"env_vars": env_vars, "excludes": excludes}))
    return path
