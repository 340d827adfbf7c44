"""``ray job submit`` against a cluster of its own, exit codes included."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.processes.ray_cluster import SCRIPTS, RayCluster
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


class TestTokens:
    """A user whose home is fresh. Ray's own ``ray.init`` leaves a token there, after which a
    cluster refuses jobs that are submitted as before."""

    @pytest.fixture
    def env(self, tmp_path: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
        return kept | {"HOME": str(tmp_path)}

    def test_recipes_work_before_and_after_a_local_run(
        self, tmp_path: Path, checkpoint: Path, env: dict[str, str]
    ) -> None:
        write_images(tmp_path / "in", 3)
        token = tmp_path / ".ray" / "auth_token"
        arguments = (tmp_path / "in", "--model", checkpoint, "--output")
        self.classify(*arguments, tmp_path / "before", env=env)
        assert not token.parent.exists()

        self.submit(*arguments, tmp_path / "without", env=env)
        assert not token.parent.exists()

        env |= {"RAY_AUTH_MODE": "token"}  # from here on as the README has it
        generate = [str(SCRIPTS / "ray"), "get-auth-token", "--generate"]
        subprocess.run(generate, env=env, check=True, capture_output=True)
        made = token.read_text()
        self.submit(*arguments, tmp_path / "with", env=env)

        self.classify(*arguments, tmp_path / "after", env=env)
        assert token.read_text() == made

    def classify(self, *arguments: str | Path, env: dict[str, str]) -> None:
        subprocess.run(command("classify", *arguments), cwd=REPOSITORY, env=env, check=True)

    def submit(self, *arguments: str | Path, env: dict[str, str]) -> None:
        entrypoint = ("python", "-m", "jobs.classify", *map(str, arguments))
        with RayCluster(num_cpus=2, env=env) as cluster:
            job = cluster.submit(*entrypoint, working_dir=REPOSITORY)
        assert job.returncode == 0, job.output
        assert "3 images listed = 3 ok" in job.output


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
