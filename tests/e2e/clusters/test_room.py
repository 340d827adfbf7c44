"""Clusters that lack what a run asks for, told in one line or asked to grow."""

import os
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.processes import victims
from tests.support.processes.ray_cluster import RayCluster
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket

pytestmark = pytest.mark.ray
SOON = {"RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1"}
"""Ray Data asks for nodes every second, not every tenth."""


def start(cluster: RayCluster, *arguments: str | Path) -> subprocess.Popen[str]:
    """The command on a machine of the cluster."""
    return subprocess.Popen(
        command("classify", *arguments),
        cwd=REPOSITORY,
        env=os.environ | {"RAY_ADDRESS": cluster.gcs_address} | SOON,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def classify(cluster: RayCluster, *arguments: str | Path) -> tuple[int, str]:
    """The same, to its end: exit code and log."""
    with start(cluster, *arguments) as run:
        _, log = run.communicate(timeout=480)
    return run.returncode, log


def test_an_actor_that_fits_on_no_node(tmp_path: Path, checkpoint: Path) -> None:
    images = write_images(tmp_path / "in", 3)[0].parent
    asked = (images, "--output", tmp_path / "out", "--model", checkpoint)
    with RayCluster(num_cpus=2) as cluster:
        cluster.add_node(num_cpus=2)
        for wanted, said in {
            ("--num-cpus-per-actor", "4"): "of 4 CPUs fits on no node: the largest (",
            ("--num-actors", "5"): "which hold 4 of them; lower --num-actors or",
            ("--num-gpus", "1"): "--num-gpus 1 is more than the 0 of the cluster",
        }.items():
            code, log = classify(cluster, *asked, *wanted)  # in less than the 600 s for nodes
            assert code == 2, log
            assert said in log
            assert len(log.splitlines()) == 1


def test_workers_that_start_from_zero(tmp_path: Path, checkpoint: Path) -> None:
    images = write_images(tmp_path / "in", 20)[0].parent
    asked = (images, "--output", tmp_path / "out", "--model", checkpoint)
    with RayCluster(num_cpus=0, autoscaled={"CPU": 2}) as cluster:
        code, log = classify(cluster, *asked, "--num-actors", "2")
        assert code == 0, log
        assert "asked the cluster's autoscaler for 2 x 1 CPU; waiting up to 600 s" in log
        assert len(published_rows(tmp_path / "out")) == 20

        code, log = classify(
            cluster, *asked, "--full", "--num-actors", "9", "--wait-for-nodes", "5"
        )
        assert code == 2, log
        assert "started no nodes that suffice within 5 s (--wait-for-nodes): 9 actors" in log


def test_a_pool_grows_with_its_cluster_which_shrinks_again(
    tmp_path: Path, checkpoint: Path
) -> None:
    images = write_images(tmp_path / "in", 2000)[0].parent
    asked = (images, "--output", tmp_path / "out", "--model", checkpoint)
    work = ("--image-size", "448", "--dtype", "float32", "--num-actors", "1:4")  # 0.1 s an image
    with RayCluster(num_cpus=0, autoscaled={"CPU": 2}, idle_minutes=0.1) as cluster:
        with start(cluster, *asked, *work) as run:
            assert run.stderr
            lines = iter(run.stderr.readline, "")
            seen = list(takewhile(lambda line: "3 of at most 4 replicas" not in line, lines))
            run.terminate()  # what it was to show is seen, however fast this machine is
        log = "".join(seen)
        assert run.returncode == 1, log  # and not 0: the work was not done before
        assert "asked the cluster's autoscaler for 1 x 1 CPU" in log
        assert "1 to 4 actors with 1 CPU thread each" in log
        assert "1 of at most 4 replicas" in log
        cluster.until_nodes(1)  # the head


@pytest.mark.slow
def test_nodes_go_when_their_work_ends_though_the_run_does_not(
    tmp_path: Path, checkpoint: Path, s3_bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    """Its manifest is not taken by the store until they have gone; it needs none for that."""
    images = write_images(tmp_path / "in", 400)[0].parent
    asked = (images, "--output", f"{s3_bucket.uri}/out", "--model", checkpoint)
    work = ("--image-size", "448", "--dtype", "float32", "--num-actors", "1:2")  # 0.1 s an image
    fault_proxy.faults = Faults(methods=("PUT",), pattern="/publish/manifest", latency_seconds=50)
    with RayCluster(num_cpus=0, autoscaled={"CPU": 1}, idle_minutes=0.1) as cluster:
        with start(cluster, *asked, *work) as run:
            closing = ".*/publish/manifest.json"
            victims.wait_until(
                lambda: fault_proxy.count("PUT", path=closing) or run.poll() is not None,
                "closing", 480,
            )  # fmt: skip
            cluster.until_nodes(1)  # the head
            assert run.poll() is None
            fault_proxy.faults = Faults()
            _, log = run.communicate(timeout=240)
        assert run.returncode == 0, log
    assert "1 of at most 2 replicas" in log
    assert "2 of at most 2 replicas" in log, "each has a node, for one does not hold two"
    assert sum(key.endswith(".parquet") for key in s3_bucket.keys("out/data/")) == 1
