"""The closing of a run on a cluster whose machines come and go."""

import os
import sys
from pathlib import Path

import pytest

from pipeline.output.ledger.history import History
from pipeline.storage.objects.s3.uploads import unfinished
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.commands import REPOSITORY
from tests.support.outputs.closings import ROWS, made_up_run
from tests.support.processes.process import start, stop
from tests.support.processes.ray_cluster import RayCluster
from tests.support.processes.victims import wait_until
from tests.support.servers.seaweedfs import Bucket


@pytest.mark.slow
@pytest.mark.ray
def test_a_node_that_is_lost_in_mid_close(s3_bucket: Bucket, tmp_path: Path) -> None:
    """Another one merges what it had; what it had sent of a file is withdrawn."""
    store = Store(f"{s3_bucket.uri}/out")
    made_up_run(store)
    stalled, log = tmp_path / "stalled", tmp_path / "log"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.support.outputs.closings", store.uri, str(stalled)]
    with RayCluster(num_cpus=0, env=env) as cluster:
        first = cluster.add_node(num_cpus=1)
        driver = start(command, log=log, env=cluster.env | {"RAY_ADDRESS": cluster.gcs_address})
        try:
            wait_until(stalled.exists, "the last file", 120)
            assert len(list(unfinished(store.path("data")))) == 3
            cluster.add_node(num_cpus=1)
            first.kill()
            assert driver.wait(timeout=480) == 0, log.read_text()
        finally:
            stop(driver)
    (run,) = History.load(store).runs
    uris = [uri for name in run.file_names for uri in read_table(store, name)["uri"].to_pylist()]
    assert uris == [f"/in/{number:06d}.jpg" for number in range(ROWS)]
    assert not list(unfinished(store.path("data")))
    assert not store.list("_open")
