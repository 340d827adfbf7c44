"""``ray job submit`` against a cluster of its own, exit codes included."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.commands import REPOSITORY
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.processes.ray_cluster import RayCluster
from tests.support.servers.seaweedfs import Bucket

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster(num_cpus=2) as cluster:
        yield cluster


def test_submitted_jobs_publish_and_tell_their_exit_codes(
    tmp_path: Path, checkpoint: Path, cluster: RayCluster
) -> None:
    write_images(tmp_path / "in", 20)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"")
    arguments = (tmp_path / "in", "--output", tmp_path / "out", "--model", checkpoint)
    entrypoint = ("python", "-m", "jobs.classify", *map(str, arguments))

    # Ray's command turns every failure into 1; the job's own code stands in its details.
    strict = cluster.submit(*entrypoint, "--max-failure-rate", "0", working_dir=REPOSITORY)
    assert (strict.returncode, strict.driver_exit_code) == (1, 3), strict.output
    assert "21 images listed = 20 ok + 1 failed + 0 skipped" in strict.output
    assert len({row["uri"] for row in published_rows(tmp_path / "out")}) == 21

    again = cluster.submit(*entrypoint, working_dir=REPOSITORY)
    assert (again.returncode, again.driver_exit_code) == (0, 0), again.output
    assert "nothing new: 21 images unchanged" in again.output


@pytest.mark.slow
def test_the_nightly_recipe_takes_credentials_from_the_nodes(
    tmp_path: Path, checkpoint: Path, s3_bucket: Bucket
) -> None:
    """As jobs/deploy/README.md has it: nodes that know the storage, a runtime environment that
    names what they know, a configuration file."""
    images = write_images(tmp_path / "in", 20)
    s3_bucket.put_tree(images[0].parent, "photos/")
    nightly = {
        "inputs": {"uris": [f"{s3_bucket.uri}/photos"]},
        "model": {"source": str(checkpoint)},
        "output": {"uri": f"{s3_bucket.uri}/results", "top_k": 3},
    }
    config = tmp_path / "nightly.yaml"
    config.write_text(yaml.safe_dump(nightly))
    with RayCluster(num_cpus=2) as cluster:
        for name in s3_bucket.server.env:  # the shell that submits knows nothing
            del cluster.env[name]
        job = cluster.submit(
            *("python", "-m", "jobs.nightly", str(config)),
            working_dir=REPOSITORY,
            runtime_env=REPOSITORY / "jobs" / "deploy" / "runtime-env.yaml",
        )
    assert job.returncode == 0, job.output
    assert "20 images listed = 20 ok" in job.output
    assert s3_bucket.server.env["AWS_SECRET_ACCESS_KEY"] not in job.output
    assert [key for key in s3_bucket.keys("results/data/") if key.endswith(".parquet")]
