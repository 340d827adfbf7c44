"""A Ray cluster in processes of its own, as ``ray start`` makes it, for jobs and lost nodes."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from ray.job_submission import JobSubmissionClient
from ray.util.state.api import StateApiClient
from ray.util.state.common import ListApiOptions, StateResource

from tests.support import needs
from tests.support.processes import process, victims

_raylet: Any = import_module("ray._raylet")  # the types of both are incomplete
_gcs: Any = import_module("ray.core.generated.gcs_pb2")
SCRIPTS = Path(sysconfig.get_path("scripts"))
START_SECONDS = 180.0
_SHELL_COMMANDS = (
    *("cluster_synced_files", "initialization_commands", "setup_commands", "rsync_exclude"),
    *("head_setup_commands", "worker_setup_commands", "rsync_filter"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
"""What an autoscaler wants to know of machines that it reaches by ssh."""
_HEAD = "ray.head.default"
"""The only name by which the autoscaler knows the head; it would replace another one for ever."""
START_TRIES = 3
"""Ray itself gives up on a node that is not up within 30 seconds."""


@dataclass(frozen=True)
class Job:
    """A finished job: what ``ray job submit`` returned and printed, and the entry point's own code.

    ``driver_exit_code`` is None when the job was stopped or never started.
    """

    returncode: int
    driver_exit_code: int | None
    output: str


@dataclass(frozen=True)
class Node:
    """A node beside the head: a raylet of its own, with the workers that it starts."""

    process: subprocess.Popen[bytes]

    def kill_raylet(self) -> None:
        """SIGKILL the raylet alone; its workers notice and end."""
        victims.kill_one(self.process.pid, "/raylet/raylet ")

    def kill(self) -> None:
        """SIGKILL everything that runs on the node, as when its machine loses power."""
        doomed = [self.process.pid, *victims.descendants(self.process.pid)]
        for pid in doomed:
            victims.kill(pid)
        self.process.wait()


class RayCluster:
    """Head and agents on free loopback ports, with token authentication unless ``env`` says
    otherwise; with a dashboard, ten processes that take as many seconds of CPU time, for jobs.

    Use it as a context manager. ``address`` is the dashboard's, for ``ray job submit``; ``env`` is
    the environment that such a command needs. Files lie in a short ``directory`` of their own,
    since a Unix socket's path must stay below 108 bytes.
    """

    def __init__(
        self,
        *,
        num_cpus: int = 4,
        takes_jobs: bool = False,
        object_store_bytes: int = 256 << 20,
        env: Mapping[str, str] = os.environ,
        autoscaled: Mapping[str, int] = MappingProxyType({}),
        idle_minutes: float = 5,
    ) -> None:
        """
        Args:
            takes_jobs: whether there is a dashboard, for ``submit``.
            autoscaled: what a node has that Ray's autoscaler may start, at most two of them; such
                as ``{"CPU": 2}``.
            idle_minutes: after which the autoscaler stops one.
        """
        self._num_cpus, self._takes_jobs = num_cpus, takes_jobs
        self._object_store_bytes = object_store_bytes
        self._autoscaled, self._idle_minutes = autoscaled, idle_minutes
        self.directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._log = self.directory / "head.log"
        self._ports = process.free_ports(5)
        self._nodes: list[Node] = []
        self.address = f"http://127.0.0.1:{self._ports[1]}"
        self.gcs_address = f"127.0.0.1:{self._ports[0]}"
        self.env = {
            **env,
            # The ``python`` of an entry point is the interpreter that runs the tests.
            "PATH": f"{SCRIPTS}{os.pathsep}{env['PATH']}",
            # Keeps this cluster's address from the tests' other drivers.
            "RAY_TMPDIR": str(self.directory),
        }
        if autoscaled:
            self.env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}

    def __enter__(self) -> Self:
        needs.demand("ray")
        self._process = process.start(self._command(), log=self._log, env=self.env)
        try:
            self._wait_until_up()
            victims.wait_until(self._alive, "raylet of the head", START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the cluster and remove its files."""
        for node in self._nodes:
            process.stop(node.process, patience=0)
        autoscaled = victims.descendants(self._process.pid) if self._autoscaled else ()
        process.stop(self._process, patience=5)
        for pid in autoscaled:
            victims.kill(pid)
        shutil.rmtree(self.directory, ignore_errors=True)

    def add_node(self, *, num_cpus: int) -> Node:
        """Join another raylet to the cluster; it is ready when this returns."""
        known = self._alive()
        agent, metrics = process.free_ports(2)
        command: list[str | Path] = [
            *(SCRIPTS / "ray", "start", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--address={self.gcs_address}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
            *self._node_options(num_cpus),
        ]
        for _ in range(START_TRIES):
            log = self.directory / f"node-{len(self._nodes)}.log"
            self._nodes.append(node := Node(process.start(command, log=log, env=self.env)))
            if self._is_up(node, known):
                return node
        raise RuntimeError(f"no new node in {START_TRIES} tries: {log.read_text()[-2000:]}")

    def _is_up(self, node: Node, known: int) -> bool:
        """Wait for the cluster to have more nodes than the known ones, or the process to end."""
        victims.wait_until(
            lambda: self._alive() > known or node.process.poll() is not None,
            "new node",
            START_SECONDS,
        )
        return node.process.poll() is None

    def until_nodes(self, count: int) -> None:
        """Wait for the cluster to have so many nodes, the head included."""
        victims.wait_until(lambda: self._alive() == count, f"cluster of {count}", START_SECONDS)

    def _alive(self) -> int:
        """How many nodes the cluster has."""
        if not self._takes_jobs:
            nodes = (
                _raylet.GcsClient(address=self.gcs_address).get_all_node_info(timeout=10).values()
            )
            return sum(node.state == _gcs.GcsNodeInfo.ALIVE for node in nodes)
        # Whose token may be another one than that of this process.
        client = StateApiClient(self.address, headers=self._headers)
        alive = ListApiOptions(filters=[("state", "=", "ALIVE")])
        return len(client.list(StateResource.NODES, alive, raise_on_missing_output=False))

    def submit(
        self,
        *entrypoint: str,
        working_dir: Path,
        runtime_env: Path | None = None,
        timeout: float = 480,
    ) -> Job:
        """Run ``ray job submit --working-dir DIR -- ENTRYPOINT`` and wait for the job's end."""
        job_id = f"test-{secrets.token_hex(4)}"
        command: list[str | Path] = [
            *(SCRIPTS / "ray", "job", "submit", "--address", self.address),
            *("--submission-id", job_id, "--working-dir", working_dir),
            *(() if runtime_env is None else ("--runtime-env", runtime_env)),
            *("--", *entrypoint),
        ]
        done = subprocess.run(
            command,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        client = JobSubmissionClient(self.address, headers=self._headers)
        info = client.get_job_info(job_id)
        return Job(done.returncode, info.driver_exit_code, done.stdout)

    @property
    def _headers(self) -> dict[str, str]:
        """What a client here sends: the token that a command finds in ``env``. The token of this
        process stays as it is, because a Ray of its own may be alive."""
        said = self.env.get("RAY_AUTH_TOKEN_PATH")
        token = Path(said) if said else Path(self.env["HOME"]) / ".ray" / "auth_token"
        headers = {"Content-Type": "application/json"}
        if self.env.get("RAY_AUTH_MODE") == "token" and token.exists():
            headers["Authorization"] = f"Bearer {token.read_text().strip()}"
        return headers

    def _command(self) -> list[str | Path]:
        gcs, dashboard, client, agent, metrics = self._ports
        return [
            *(SCRIPTS / "ray", "start", "--head", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--temp-dir={self.directory}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            f"--include-dashboard={str(self._takes_jobs).lower()}",
            f"--dashboard-agent-listen-port={agent}",
            *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
            *self._node_options(self._num_cpus),
            *([f"--autoscaling-config={self._autoscaler()}"] if self._autoscaled else []),
        ]

    def _autoscaler(self) -> Path:
        """A configuration of Ray's autoscaler whose machines are processes beside the head."""
        resources = {"object_store_memory": self._object_store_bytes, **self._autoscaled}
        kinds = {
            _HEAD: {"resources": {"CPU": self._num_cpus}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": resources, "node_config": {}, "min_workers": 0, "max_workers": 2
            },
        }  # fmt: skip
        config = {
            "cluster_name": "test",
            "max_workers": 2,
            "idle_timeout_minutes": self._idle_minutes,
            "upscaling_speed": 1.0,
            "file_mounts_sync_continuously": False,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": self.gcs_address,
                "use_node_id_as_ip": True,  # all have that of this machine
                "disable_node_updaters": True,  # who would come by ssh
                "disable_launch_config_check": True,
            },
            "head_node_type": _HEAD,
            "available_node_types": kinds,
            **{name: {} for name in ("auth", "docker", "file_mounts")},
            **{name: [] for name in _SHELL_COMMANDS},
        }
        path = self.directory / "autoscaler.json"
        path.write_text(json.dumps(config))
        return path

    def _node_options(self, num_cpus: int) -> list[str]:
        return [
            # Workers take any free port; their default range, 10002 to 19999, may cover ours.
            *("--min-worker-port=0", "--max-worker-port=0"),
            f"--num-cpus={num_cpus}",
            f"--object-store-memory={self._object_store_bytes}",
        ]

    def _ask(self) -> None:
        """Connect to what comes up last."""
        if self._takes_jobs:
            JobSubmissionClient(self.address, headers=self._headers)
        else:
            socket.create_connection(("127.0.0.1", self._ports[0]), 10).close()

    def _wait_until_up(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                self._ask()
                return
            except (ConnectionError, TimeoutError) as error:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    raise RuntimeError(
                        f"Ray did not start: {error}\n{process.log_tail(self._log)}"
                    ) from error
            time.sleep(0.2)
