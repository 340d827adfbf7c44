"""Fine-tuning on several machines, really: each with an address and a disk of its own, pictures and
models in a bucket. One of them dies in the middle of it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.bench.synthetic.models import write_model
from tests.support.inputs.images import write_kinds
from tests.support.outputs.found import BucketOutput, find
from tests.support.processes import victims
from tests.support.processes.hosts import Cluster, Host, Network, write_environment
from tests.support.servers.seaweedfs import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.server]

IMAGES = 48
TRAINER = "RayTrainWorker"
Start = Callable[[BucketOutput], subprocess.Popen[str]]


@pytest.fixture
def start(network: Network, bucket: Bucket, tmp_path: Path) -> Start:
    """Starts a training by two workers on three hosts with a CPU each; its models go into a
    directory of the bucket."""
    write_kinds(tmp_path / "in", IMAGES // 3)
    bucket.put_tree(tmp_path / "in", "in/")
    bucket.put_tree(write_model(tmp_path / "model", "small"), "model/")
    environment = write_environment(tmp_path / "environment.json", bucket.server.env)
    cluster = Cluster(network.hosts)

    def started(models: BucketOutput) -> subprocess.Popen[str]:
        return cluster.submit(
            environment,
            *("finetune", f"{bucket.uri}/in", "--output", models.uri),
            *("--model", f"{bucket.uri}/model", "--label-from", "directory", "--train", "all"),
            *("--epochs", "40", "--patience", "40", "--batch-size", "12", "--num-workers", "2"),
        )

    return started


def at_work(network: Network, models: BucketOutput, job: subprocess.Popen[str]) -> list[Host]:
    """The hosts of the workers, once they have saved something."""
    victims.wait_until(
        lambda: find(models, r"_open/[^/]+/training/step-") or job.poll() is not None, "checkpoint"
    )
    assert job.poll() is None, job.communicate()
    return [host for host in network.hosts if host.runs(TRAINER)]


def course(models: BucketOutput) -> list[float]:
    """The losses of the epochs of the only model, beside which nothing is left."""
    (metrics,) = find(models, r"models/[^/]+/metrics\.json")
    rest = [name for name in models.names() if not name.startswith("models/")]
    assert rest == find(models, "latest.json"), "a checkpoint, a lease or half a file is left"
    epochs = json.loads(models.read(metrics))["epochs"]
    return [epoch[name] for epoch in epochs for name in ("train_loss", "loss")]


def test_a_host_dies_and_the_training_ends_as_if_it_had_not(
    network: Network, bucket: Bucket, start: Start
) -> None:
    models = BucketOutput(bucket, "models")
    job = start(models)
    hosts = at_work(network, models, job)
    assert len(hosts) == 2
    doomed = next(host for host in hosts if host is not network.hosts[0])
    doomed.kill_all()
    said, _ = job.communicate()
    assert job.returncode == 0, said
    assert said.count(f"plan: {IMAGES} new") == 1
    assert f"the host {doomed.address} was lost; training goes on from step " in said
    assert "Traceback" not in said
    undisturbed = BucketOutput(bucket, "others")
    job = start(undisturbed)
    said, _ = job.communicate()
    assert job.returncode == 0, said
    # Embedded in other batches, the images give a head that differs in rounding.
    assert course(models) == pytest.approx(course(undisturbed), abs=1e-4)
