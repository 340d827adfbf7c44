"""``ray job submit`` against a cluster of its own, exit codes included."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.processes.ray_cluster import SCRIPTS, Job, RayCluster
from tests.support.servers.seaweedfs import Bucket

pytestmark = pytest.mark.ray


class TestSubmitted:
    """By a user whose home is fresh. Ray's own ``ray.init`` leaves a token there, after which a
    cluster refuses jobs that are submitted as before; that a run leaves none,
    ``tests/pipeline/runs/python/test_jobs.py`` holds."""

    @pytest.fixture
    def env(self, tmp_path: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
        return kept | {"HOME": str(tmp_path)}

    def test_recipes_work_and_a_local_run_leaves_the_token_alone(
        self, tmp_path: Path, checkpoint: Path, env: dict[str, str]
    ) -> None:
        write_images(tmp_path / "in", 20)
        (tmp_path / "in" / "bad.jpg").write_bytes(b"")
        token = tmp_path / ".ray" / "auth_token"
        arguments = (tmp_path / "in", "--model", checkpoint, "--num-actors", "1", "--output")
        with RayCluster(num_cpus=2, takes_jobs=True, env=env) as cluster:
            self.check_exit_code(cluster, *arguments, tmp_path / "without")
        assert not token.parent.exists()

        env |= {"RAY_AUTH_MODE": "token"}  # from here on as the README has it
        generate = [str(SCRIPTS / "ray"), "get-auth-token", "--generate"]
        subprocess.run(generate, env=env, check=True, capture_output=True)
        made = token.read_text()
        with RayCluster(num_cpus=2, takes_jobs=True, env=env) as cluster:
            job = self.submit(cluster, *arguments, tmp_path / "with")
        assert (job.returncode, job.driver_exit_code) == (0, 0), job.output
        assert len(published_rows(tmp_path / "with")) == 21

        after = command("classify", *arguments, tmp_path / "after")
        subprocess.run(after, cwd=REPOSITORY, env=env, check=True)
        assert token.read_text() == made

    def check_exit_code(self, cluster: RayCluster, *arguments: str | Path) -> None:
        """Ray's command turns every failure into 1; the job's own code stands in its details."""
        strict = self.submit(cluster, *arguments, "--max-failure-rate", "0")
        assert (strict.returncode, strict.driver_exit_code) == (1, 3), strict.output
        assert "21 images listed = 20 ok + 1 failed + 0 skipped" in strict.output
        assert len({row["uri"] for row in published_rows(Path(arguments[-1]))}) == 21

    def submit(self, cluster: RayCluster, *arguments: str | Path) -> Job:
        entrypoint = ("python", "-m", "jobs.classify", *map(str, arguments))
        return cluster.submit(*entrypoint, working_dir=REPOSITORY)


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
    with RayCluster(num_cpus=2, takes_jobs=True) as cluster:
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
