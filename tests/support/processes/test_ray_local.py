import os

import pytest
import ray


@pytest.mark.usefixtures("ray_local")
def test_datasets_run_in_other_processes() -> None:
    rows = ray.data.range(8, override_num_blocks=4).map(lambda row: {"pid": os.getpid(), **row})
    table = rows.to_pandas()
    assert sorted(table["id"]) == list(range(8))
    assert os.getpid() not in set(table["pid"])
    assert ray.cluster_resources()["CPU"] == 2
