"""Whatever ends a training, and whenever: the same command finishes it, with the same weights, bit
for bit."""

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.bench.synthetic.models import write_model
from tests.support.commands import command
from tests.support.inputs.images import write_kinds
from tests.support.outputs.found import BucketOutput, LocalOutput, find
from tests.support.processes import victims
from tests.support.processes.scenes import Attempt, Scene
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket

pytestmark = pytest.mark.ray

EPOCHS = 12
TRAINER = "RayTrainWorker"
DIES_BEFORE_IT_POINTS_TO_THE_MODEL = """
import os, signal, sys
from pipeline.runs.finetune import job
job.point_to = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from jobs import finetune
sys.exit(finetune.main())
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures in ``in``, a network in ``model``."""
    directory = tmp_path_factory.mktemp("given")
    write_kinds(directory / "in", 16)
    write_model(directory / "model", "small")
    return directory


def training(given: Path, source: str, output: LocalOutput | BucketOutput, logs: Path) -> Scene:
    options = {
        "model": given / "model",
        "label-from": "directory",
        "train": "all",
        "epochs": EPOCHS,
        "batch-size": 12,
        "learning-rate": 1e-3,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return Scene(command("finetune", source, "--output", output.uri, *flags), output, logs)


@pytest.fixture
def on_disk(given: Path, tmp_path: Path) -> Iterator[Scene]:
    it = training(given, str(given / "in"), LocalOutput(tmp_path / "models"), tmp_path)
    yield it
    it.stop()


def weights(scene: Scene) -> str:
    """The hash of those of the newest model, beside which nothing is left."""
    (latest,) = find(scene.output, "latest.json")
    (model,) = find(scene.output, r"models/[^/]+/model\.safetensors")
    rest = [name for name in scene.output.names() if not name.startswith("models/")]
    assert rest == [latest], "a checkpoint, a lease or half a file is left"
    return hashlib.sha256(scene.output.read(model)).hexdigest()


def finished(scene: Scene) -> str:
    """Its weights, once the command has been started again."""
    code, log = scene.start().wait()
    assert code == 0, log
    assert "Traceback" not in log
    return weights(scene)


def undisturbed(scene: Scene) -> str:
    """The weights of a training on the images as they have been read there that nothing disturbs.
    Another reading may fill other batches, and embeddings then differ in their last bits."""
    directory = scene.directory / "undisturbed"
    copy = LocalOutput(directory / "models")
    for name in scene.output.names():
        if "/training/" not in name:
            copy.write(name, scene.output.read(name))
    arguments = [copy.uri if word == scene.output.uri else word for word in scene.arguments]
    other = Scene(arguments, copy, directory)
    try:
        return finished(other)
    finally:
        other.stop()


def wait_for(scene: Scene, run: Attempt, pattern: str) -> None:
    """Until there are such files in MODELS."""
    victims.wait_until(lambda: find(scene.output, pattern) or run.has_ended, pattern)
    assert not run.has_ended, run.log.read_text()


def halves(directory: Path) -> list[str]:
    """Files that are on their way to their names."""
    return [name for name in os.listdir(directory) if name.endswith(".tmp")]


def kill_in_the_middle_of_saving(scene: Scene, run: Attempt) -> None:
    """SIGKILL driver and worker while a file of the training is on its way to its name."""
    wait_for(scene, run, r"_open/[^/]+/training/step-")
    (directory,) = Path(scene.output.uri).glob("_open/*/training")
    (worker,) = victims.below(run.process.pid, TRAINER)
    while True:
        assert directory.exists(), run.log.read_text()
        if halves(directory):
            os.kill(worker, signal.SIGSTOP)
            if halves(directory):
                break
            os.kill(worker, signal.SIGCONT)
        time.sleep(0.0002)
    run.kill()
    victims.kill(worker)
    assert halves(directory)


def test_a_driver_that_is_killed_again_and_again(on_disk: Scene) -> None:
    """In the middle of saving, and when the model is there and not named."""
    run = on_disk.start()
    kill_in_the_middle_of_saving(on_disk, run)
    expected = undisturbed(on_disk)
    same = on_disk.arguments
    on_disk.arguments = [sys.executable, "-c", DIES_BEFORE_IT_POINTS_TO_THE_MODEL, *same[3:]]
    code, log = on_disk.start().wait()
    assert code == -signal.SIGKILL, log
    assert find(on_disk.output, r"models/[^/]+/training\.json")
    assert not find(on_disk.output, "latest.json")
    on_disk.arguments = same
    assert finished(on_disk) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_time(on_disk: Scene, seed: int) -> None:
    """Some seconds after the images begin to be read, after they are, and after the first epoch."""
    rng = random.Random(seed)
    reading = "_open/[^/]+/images/_open/[^/]+/open.json"
    kills = {reading: 3.0, "_open/[^/]+/images/runs/": 3.0, "_open/[^/]+/training/step-": 0.5}
    for pattern, most_seconds in kills.items():
        run = on_disk.start()
        wait_for(on_disk, run, pattern)
        time.sleep(rng.uniform(0, most_seconds))
        run.kill()
    expected = undisturbed(on_disk)
    assert finished(on_disk) == expected


@pytest.mark.slow
def test_sigterm_saves(on_disk: Scene) -> None:
    run = on_disk.start()
    wait_for(on_disk, run, r"_open/[^/]+/training/step-")
    run.process.send_signal(signal.SIGTERM)
    code, log = run.wait()
    assert code == 1, log
    assert log.splitlines()[-1] == (
        "error: stopped by SIGTERM; the training is saved; start the same command again to continue"
    )
    expected = undisturbed(on_disk)
    assert finished(on_disk) == expected


@pytest.mark.slow
@pytest.mark.server
def test_models_in_a_bucket(
    given: Path, s3_bucket: Bucket, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """A checkpoint is under way when the driver is killed; nothing of it stays."""
    s3_bucket.put_tree(given / "in", "in/")
    scene = training(given, f"{s3_bucket.uri}/in", BucketOutput(s3_bucket, "models"), tmp_path)
    try:
        fault_proxy.faults = Faults(latency_seconds=3, pattern=r"/training/step-", methods=("PUT",))
        run = scene.start()
        victims.wait_until(
            lambda: fault_proxy.count("PUT", path=r".*/training/step-.*") > 1 or run.has_ended,
            "checkpoint",
        )
        assert not run.has_ended, run.log.read_text()
        run.kill()
        fault_proxy.faults = Faults()
        expected = undisturbed(scene)
        assert finished(scene) == expected
    finally:
        scene.stop()
    uploads = s3_bucket.server.client.list_multipart_uploads(Bucket=s3_bucket.name)
    assert not uploads.get("Uploads")
