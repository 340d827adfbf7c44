"""Several machines, really: each with an address, a raylet, a disk of its own, and the storage on
the other side of the network. One of them dies while another is cut off from the storage."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from tests.support.inputs.images import write_images
from tests.support.outputs.found import BucketOutput, check_closed
from tests.support.processes import victims
from tests.support.processes.hosts import ENV, Cluster, Network, write_environment
from tests.support.servers.seaweedfs import Bucket

IMAGES = 300


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
    with Cluster(network.hosts).submit(
        write_environment(tmp_path / "environment.json", bucket.server.env),
        "classify",
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
