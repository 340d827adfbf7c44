"""Whatever is killed, and whenever: the same command finishes the run, and every image has one row.

Work that was committed is not done again; of the rest, at most what was in flight is.
"""

import json
import os
import re
import time
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from tests.support.outputs.found import (
    LocalOutput,
    check_closed,
    check_no_open_run_is_visible,
    find,
    parts,
)
from tests.support.processes import victims
from tests.support.processes.ray_cluster import RayCluster
from tests.support.processes.scenes import BLOCK, IMAGES, Scene, computed_twice
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.ray

ROWS_PER_PART = 256
ACTORS = 2
# What Ray hands to actors and tasks at a time: two blocks each, and what lies between them.
IN_FLIGHT = 8 * BLOCK
DECODER = "ray::MapBatches(decode_block)"
ACTOR = "ray::MapWorker(MapBatches(Predictor)).submit"
RAYLET = "/raylet/raylet "
SOON = {"RAY_health_check_period_ms": "1000"}
"""A node that does not answer five times is dead; Ray asks every second, not every third."""


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


@pytest.mark.slow
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
    assert manifest["plan"]["finished"] >= min(IMAGES, ROWS_PER_PART * committed)
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
    with RayCluster(num_cpus=ACTORS, env=os.environ | SOON) as cluster:
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
