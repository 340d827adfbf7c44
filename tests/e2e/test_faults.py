"""Whatever is killed, and whenever: the same command finishes the run, and every image has one row.

Work that was committed is not done again; of the rest, at most what was in flight is.
"""

import json
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor
from tests.support.outputs.found import (
    BucketOutput,
    LocalOutput,
    Output,
    check_closed,
    check_no_open_run_is_visible,
    find,
    parts,
)
from tests.support.processes import process, victims
from tests.support.processes.ray_cluster import RayCluster
from tests.support.samples import command, write_images
from tests.support.servers.fault_proxy import FaultProxy, Faults
from tests.support.servers.seaweedfs import Bucket, SeaweedFS

IMAGES = 600
BLOCK = 32
ROWS_PER_PART = 256
ACTORS = 2
# What Ray hands to actors and tasks at a time: two blocks each, and what lies between them.
IN_FLIGHT = 8 * BLOCK

DECODER = "ray::MapBatches(decode_block)"
ACTOR = "ray::MapWorker(MapBatches(Predictor)).submit"
RAYLET = "/raylet/raylet "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a run can be met at work: some 10 ms for an image."""
    directory = tmp_path_factory.mktemp("model")
    config = CvtConfig(embed_dim=(64, 96, 128), num_heads=(1, 2, 2), depth=(1, 1, 2))
    CvtForImageClassification(config).eval().save_pretrained(directory)
    CvtImageProcessor(size=96).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("photos")
    write_images(directory, IMAGES - 1)
    (directory / "bad.jpg").write_bytes(b"bad")
    return directory


@dataclass
class Attempt:
    """One start of the command, with all that it printed in one log."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, patience: float = 240) -> tuple[int, str]:
        """Exit code and output."""
        code = self.process.wait(patience)
        return code, self.log.read_text()

    def kill(self) -> None:
        """SIGKILL the driver, and nothing else."""
        self.process.kill()
        self.process.wait()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None


@dataclass
class Scene:
    """One command that is started again and again."""

    arguments: list[str]
    output: Output
    directory: Path
    env: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    def start(self) -> Attempt:
        log = self.directory / f"attempt-{len(self.attempts)}.log"
        started = process.start(self.arguments, log=log, env=os.environ | self.env)
        self.attempts.append(Attempt(started, log))
        return self.attempts[-1]

    def stop(self) -> None:
        for attempt in self.attempts:
            process.stop(attempt.process)

    def until_parts(self, attempt: Attempt, number: int) -> None:
        """Wait until the open run has so many parts."""
        victims.wait_until(
            lambda: len(parts(self.output)) >= number or attempt.has_ended, f"{number} parts"
        )
        assert not attempt.has_ended, attempt.log.read_text()

    def finish(self) -> dict[str, Any]:
        """Start the command once more; the manifest, after all checks of the output."""
        code, log = self.start().wait()
        assert code == 0, log
        assert "Traceback" not in log
        return check_closed(self.output, IMAGES)


def scene(source: str, output: Output, model: Path, directory: Path) -> Scene:
    arguments = command("classify", source, "--output", output.uri, "--model", model)
    return Scene([*arguments, f"--block-size={BLOCK}"], output, directory)


@pytest.fixture
def on_disk(photos: Path, model: Path, tmp_path: Path) -> Iterator[Scene]:
    it = scene(str(photos), LocalOutput(tmp_path / "out"), model, tmp_path)
    yield it
    it.stop()


@pytest.fixture
def on_s3(photos: Path, model: Path, tmp_path: Path, s3_bucket: Bucket) -> Iterator[Scene]:
    s3_bucket.put_tree(photos, "photos/")
    it = scene(f"{s3_bucket.uri}/photos", BucketOutput(s3_bucket), model, tmp_path)
    yield it
    it.stop()


MOMENTS = {
    "lease": r"_lease\.json$",
    "record": r"_open/[^/]+/open\.json$",
    "part": r"_open/[^/]+/parts/[^.]+\.parquet$",
    "merging": r"_open/[^/]+/publish/",
    "books closed": r"_open/[^/]+/publish/manifest\.json$",
    "data visible": r"data/",
    "manifest visible": r"runs/.*manifest\.json$",
    "published": r"latest\.json$",
}
"""Names that appear in the output one after the other, for the kills to aim at."""


def kill_at_random(scene: Scene, rng: random.Random) -> str:
    """Start the command and SIGKILL the driver at a random point; where it was met."""
    before = {moment: len(find(scene.output, MOMENTS[moment])) for moment in MOMENTS}
    attempt = scene.start()
    started = time.monotonic()
    if rng.random() < 0.3:
        moment, delay = "anywhere", rng.uniform(0, 30)
    else:
        moment = rng.choice([name for name in MOMENTS if name == "part" or not before[name]])
        delay = rng.choice([0, rng.uniform(0, 0.3), rng.uniform(0, 4)])
        while not attempt.has_ended:
            if len(find(scene.output, MOMENTS[moment])) > before[moment]:
                break
            time.sleep(0.01)
    give_up = time.monotonic() + delay
    while not attempt.has_ended and time.monotonic() < give_up:
        time.sleep(0.01)
    met = "had ended" if attempt.has_ended else f"{time.monotonic() - started:.1f} s"
    attempt.kill()
    return f"{moment} ({met})"


def kill_until_tired(scene: Scene, seed: int, kills: int) -> None:
    """Kill the command again and again, each time checking what a reader sees, then finish it."""
    rng = random.Random(seed)
    committed: set[str] = set()
    for _ in range(kills):
        moment = kill_at_random(scene, rng)
        check_no_open_run_is_visible(scene.output)
        left = set(parts(scene.output))
        print(f"seed {seed}: killed at {moment}, {len(left)} parts")
        if any(name.startswith("runs/") for name in scene.output.names()):
            break
        assert committed <= left, "a committed part has gone"
        committed = left
    manifest = scene.finish()
    print(f"seed {seed}: finished in attempt {manifest['attempts']}, {computed_twice(manifest)} "
          f"images computed again, {manifest['plan']['finished']} taken over")  # fmt: skip
    assert computed_twice(manifest) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_points(on_disk: Scene, seed: int) -> None:
    kill_until_tired(on_disk, seed, kills=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 13))
def test_killed_at_random_points_on_s3(on_s3: Scene, seed: int) -> None:
    kill_until_tired(on_s3, seed, kills=4)


@pytest.mark.slow
def test_storage_that_goes_away_for_a_while(on_s3: Scene, s3_server: SeaweedFS) -> None:
    """The images are waited for; where a write meets the outage, the run stops with one line."""
    run = on_s3.start()
    victims.wait_until(lambda: victims.below(run.process.pid, ACTOR), "first inference")
    with s3_server.outage():
        time.sleep(20)
    code, log = run.wait()
    assert "Traceback" not in log
    print(f"storage away for 20 s: exit code {code}: {log.splitlines()[-1]}")
    if code:
        assert code == 1, log
        assert re.match(r"error: .*start the same command again", log.splitlines()[-1])
    manifest = on_s3.finish()
    assert set(manifest["failures"]) == {"not_an_image"}, "an outage is no fault of the images"


@pytest.mark.slow
def test_a_dead_node_elsewhere_holds_its_lease_for_a_while(on_disk: Scene) -> None:
    first = on_disk.start()
    on_disk.until_parts(first, 1)
    first.kill()
    lease = json.loads(on_disk.output.read("_lease.json"))
    elsewhere = lease | {"host": "elsewhere", "process": "another boot, pid and start"}
    on_disk.output.write("_lease.json", json.dumps(elsewhere).encode())
    started = time.monotonic()
    assert computed_twice(on_disk.finish()) == 0
    assert time.monotonic() - started > 45
    assert "taking over" in on_disk.attempts[-1].log.read_text()


@pytest.mark.slow
def test_the_only_raylet_dies(on_disk: Scene) -> None:
    run = on_disk.start()
    on_disk.until_parts(run, 1)
    victims.kill_one(run.process.pid, RAYLET)
    code, log = run.wait()
    print(f"only raylet killed: exit code {code}: {log.splitlines()[-1]}")
    assert code != 0
    check_no_open_run_is_visible(on_disk.output)
    assert computed_twice(on_disk.finish()) == 0


def computed_twice(manifest: dict[str, Any]) -> int:
    """Images that the last attempt computed although their rows stood, or more than once."""
    timings, plan = manifest["timings"], manifest["plan"]
    return int(timings.get("stage_inferred", 0)) - (IMAGES - int(plan["finished"]))


def test_a_power_failure_costs_what_the_disk_had_not_kept(on_disk: Scene) -> None:
    first = on_disk.start()
    on_disk.until_parts(first, 1)
    first.kill()
    check_no_open_run_is_visible(on_disk.output)
    assert isinstance(on_disk.output, LocalOutput)
    newest = max(parts(on_disk.output))
    path = on_disk.output.root / newest
    rows = [pq.read_metadata(on_disk.output.root / name).num_rows for name in parts(on_disk.output)]
    lost = pq.read_metadata(path).num_rows
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    path.with_name(f".{path.name}.0a1b2c3d.tmp").write_bytes(half)
    (on_disk.output.root / "_lease.json").write_bytes(b"")

    manifest = on_disk.finish()
    assert manifest["attempts"] == 2
    assert manifest["plan"]["finished"] == sum(rows) - lost
    assert computed_twice(manifest) == 0


def test_a_second_copy_leaves_and_takes_over_once_the_first_is_killed(
    on_s3: Scene, fault_proxy: FaultProxy
) -> None:
    fault_proxy.faults = Faults(latency_seconds=2, pattern=r"\.jpg")  # the first copy takes long
    first = on_s3.start()
    victims.wait_until(lambda: find(on_s3.output, "_lease.json"), "lease")
    second = on_s3.start()
    code, log = second.wait()
    assert code == 1
    assert f"error: another run is at work on {on_s3.output.uri}" in log.splitlines()[-1]
    assert f"process {first.process.pid}" in log
    fault_proxy.faults = Faults()
    on_s3.until_parts(first, 1)
    first.kill()
    check_no_open_run_is_visible(on_s3.output)
    committed = len(parts(on_s3.output))

    manifest = on_s3.finish()
    assert manifest["attempts"] == 2
    assert manifest["plan"]["finished"] >= ROWS_PER_PART * committed
    assert computed_twice(manifest) == 0


def test_killed_workers_are_replaced_while_the_run_goes_on(on_disk: Scene) -> None:
    run = on_disk.start()
    victims.kill_one(run.process.pid, DECODER)
    victims.kill_one(run.process.pid, ACTOR)
    code, log = run.wait()
    assert code == 0, log
    assert "Traceback" not in log
    manifest = check_closed(on_disk.output, IMAGES)
    assert manifest["attempts"] == 1
    assert 0 <= computed_twice(manifest) <= IN_FLIGHT


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with RayCluster(num_cpus=ACTORS) as cluster:
        yield cluster


@pytest.mark.parametrize(
    "whole", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["node", "raylet"]
)
def test_the_run_closes_without_a_node_that_died(
    on_disk: Scene, cluster: RayCluster, whole: bool
) -> None:
    node = cluster.add_node(num_cpus=1)
    on_disk.env = cluster.env | {"RAY_ADDRESS": cluster.gcs_address}
    on_disk.arguments += [f"--num-actors={ACTORS}"]
    run = on_disk.start()
    victims.wait_until(lambda: victims.below(node.process.pid, ACTOR), "actor on the node")
    node.kill() if whole else node.kill_raylet()
    code, log = run.wait()
    assert code == 0, log
    manifest = check_closed(on_disk.output, IMAGES)
    assert manifest["attempts"] == 1
    # Beside the work in flight, finished rows that only the lost node held.
    assert 0 <= computed_twice(manifest) <= IMAGES
