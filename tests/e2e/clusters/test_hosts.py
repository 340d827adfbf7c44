"""Several machines, really: each with an address, a raylet, a disk of its own, and the storage on
the other side of the network. One of them dies while another is cut off from the storage."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from tests.support.commands import REPOSITORY
from tests.support.inputs.images import write_images
from tests.support.outputs.found import BucketOutput, check_closed
from tests.support.processes import victims
from tests.support.processes.hosts import Host, Network, why_not
from tests.support.processes.ray_cluster import SCRIPTS, START_SECONDS
from tests.support.servers.seaweedfs import Bucket, SeaweedFS

IMAGES = 300
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


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    with Network(3) as network:
        yield network


@pytest.fixture
def bucket(network: Network) -> Iterator[Bucket]:
    with SeaweedFS(network.address) as server:
        yield server.create_bucket()


class Cluster:
    """Ray on the hosts; the first is the head."""

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

    def submit(self, environment: Path, *arguments: str) -> subprocess.Popen[str]:
        """``ray job submit`` of the command, whose log it prints."""
        return subprocess.Popen(
            [
                *(str(SCRIPTS / "ray"), "job", "submit", "--address", self.address),
                *("--working-dir", str(REPOSITORY), "--runtime-env", str(environment)),
                *("--", "python", "-m", "jobs.classify", *arguments),
            ],
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_hosts_share_no_disk_and_have_wires_of_their_own(network: Network) -> None:
    first, second, _ = network.hosts

    def on_first(*command: str) -> int:
        return first.start(command, log="log", env=ENV).wait()

    assert on_first("touch", "/tmp/mine") == 0
    assert (first.disk / "tmp" / "mine").exists()
    assert not (second.disk / "tmp" / "mine").exists()
    assert on_first("test", "-e", str(REPOSITORY / "pipeline" / "runs")) != 0
    second.start([sys.executable, "-m", "http.server", "8000"], log="server", env=ENV)
    connect = f"socket.create_connection(('{second.address}', 8000), 1)"
    reach = (sys.executable, "-c", f"import socket; {connect}")
    victims.wait_until(lambda: on_first(*reach) == 0, "server on the second host")
    first.cut_off(second.address)
    assert on_first(*reach) != 0
    first.reconnect(second.address)
    assert on_first(*reach) == 0


@pytest.fixture
def job(
    network: Network, bucket: Bucket, tmp_path: Path, checkpoint: Path
) -> Iterator[subprocess.Popen[str]]:
    """``IMAGES`` images of the bucket, on three hosts."""
    bucket.put_tree(write_images(tmp_path / "in", IMAGES)[0].parent, "in/")
    bucket.put_tree(checkpoint, "model/")
    environment = tmp_path / "environment.json"
    env_vars = bucket.server.env | {"AWS_EC2_METADATA_DISABLED": "true"}
    excludes = [".git", ".venv", "tests", "docs", "build"]
    environment.write_text(json.dumps({"env_vars": env_vars, "excludes": excludes}))
    with Cluster(network.hosts).submit(
        environment,
        *(f"{bucket.uri}/in", "--output", BucketOutput(bucket).uri),
        *("--model", f"{bucket.uri}/model"),
        *("--image-size", "448", "--dtype", "float32"),  # 0.1 s an image
    ) as job:
        yield job


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.server
def test_a_host_dies_while_another_is_cut_off_from_the_storage(
    network: Network, bucket: Bucket, job: subprocess.Popen[str]
) -> None:
    _, doomed, cut = network.hosts
    assert job.stdout
    lines = iter(job.stdout.readline, "")
    log = list(takewhile(lambda line: not is_at_work(line), lines))
    doomed.kill_all()
    cut.cut_off(network.address)
    log += takewhile(lambda line: "nodes were lost" not in line, lines)
    cut.reconnect(network.address)
    rest = list(lines)
    said = "".join([*log, *rest])
    assert job.wait() == 0, said
    assert "3 actors with 1 CPU thread each" in said
    assert "2 actors with 1 CPU thread each" in "".join(rest), said
    assert f"{IMAGES} images listed = {IMAGES} ok + 0 failed" in said
    assert check_closed(BucketOutput(bucket), IMAGES)["attempts"] == 2


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.server
def test_the_others_do_the_work_of_a_host_that_is_cut_off_for_good(
    network: Network, bucket: Bucket, job: subprocess.Popen[str]
) -> None:
    cut = network.hosts[2]
    assert job.stdout
    lines = iter(job.stdout.readline, "")
    log = list(takewhile(lambda line: not is_at_work(line), lines))
    cut.cut_off(network.address)
    log += lines
    said = "".join(log)
    assert job.wait() == 0, said
    assert f"the host {cut.address} does not reach {bucket.uri}/" in said
    assert said.count(", but others do; continuing there") == 1
    assert "2 actors with 1 CPU thread each" in said
    assert f"{IMAGES} images listed = {IMAGES} ok + 0 failed" in said
    assert check_closed(BucketOutput(bucket), IMAGES)["attempts"] == 2


def is_at_work(line: str) -> bool:
    """Whether a line of progress tells of images that are done."""
    return f" of {IMAGES} images, " in line and not line.startswith("0 of")
