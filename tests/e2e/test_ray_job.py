"""`ray job submit` against a cluster of its own, exit codes included."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ray_cluster import RayCluster
from tests.support.samples import REPOSITORY, published_rows, write_images


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster(num_cpus=2) as cluster:
        yield cluster


def test_a_submitted_job_publishes_and_tells_its_exit_code(
    tmp_path: Path, checkpoint: Path, cluster: RayCluster
) -> None:
    write_images(tmp_path / "in", 20)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"")
    arguments = (tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint)
    entrypoint = ("python", "-m", "jobs.classify", *map(str, arguments))

    job = cluster.submit(*entrypoint, working_dir=REPOSITORY)
    assert job.returncode == 0, job.output
    assert job.driver_exit_code == 0
    assert "21 images listed = 20 ok + 1 failed + 0 skipped" in job.output
    assert len({row["uri"] for row in published_rows(tmp_path / "out")}) == 21

    # Ray's command turns every failure into 1; the job's own code stands in its details.
    strict = cluster.submit(
        *entrypoint, "--full", "--max-failure-rate", "0", working_dir=REPOSITORY
    )
    assert (strict.returncode, strict.driver_exit_code) == (1, 3)
    wrong = cluster.submit(*entrypoint, "--dtype", "bfloat16", working_dir=REPOSITORY)
    assert (wrong.returncode, wrong.driver_exit_code) == (1, 2)
    assert "dtype: float32 -> bfloat16" in wrong.output
