"""Clusters that lack what a run asks for, told in one line or asked to grow."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.processes.ray_cluster import RayCluster

pytestmark = pytest.mark.ray


def classify(
    cluster: RayCluster, *arguments: str | Path, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """The command on a machine of the cluster."""
    return subprocess.run(
        command("classify", *arguments),
        cwd=REPOSITORY,
        env=os.environ | {"RAY_ADDRESS": cluster.gcs_address},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_an_actor_that_fits_on_no_node(tmp_path: Path, checkpoint: Path) -> None:
    images = write_images(tmp_path / "in", 3)[0].parent
    asked = (images, "--output", tmp_path / "out", "--model", checkpoint)
    with RayCluster(num_cpus=2) as cluster:
        cluster.add_node(num_cpus=2)
        started = time.monotonic()
        for wanted, said in {
            ("--num-cpus-per-actor", "4"): "of 4 CPUs fits on no node: the largest (",
            ("--num-actors", "5"): "which hold 4 of them; lower --num-actors or",
            ("--num-gpus", "1"): "--num-gpus 1 is more than the 0 of the cluster",
        }.items():
            done = classify(cluster, *asked, *wanted)
            assert done.returncode == 2, done.stderr
            assert said in done.stderr
            assert len(done.stderr.splitlines()) == 1
        assert time.monotonic() - started < 150  # no line waited for nodes that nobody starts


def test_workers_that_start_from_zero(tmp_path: Path, checkpoint: Path) -> None:
    images = write_images(tmp_path / "in", 20)[0].parent
    asked = (images, "--output", tmp_path / "out", "--model", checkpoint)
    with RayCluster(num_cpus=0, autoscaled={"CPU": 2}) as cluster:
        done = classify(cluster, *asked, "--num-actors", "2")
        assert done.returncode == 0, done.stderr
        assert "asked the cluster's autoscaler for 2 x 1 CPU; waiting up to 600 s" in done.stderr
        assert len(published_rows(tmp_path / "out")) == 20

        never = classify(cluster, *asked, "--full", "--num-actors", "9", "--wait-for-nodes", "5")
        assert never.returncode == 2, never.stderr
        assert "started no nodes that suffice within 5 s (--wait-for-nodes): 9 actors" in (
            never.stderr
        )
