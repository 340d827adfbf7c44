"""What feeding the actors costs beside decoding: every part has a figure."""

from pathlib import Path

import pytest

from jobs.bench.components.feeding import bench_feed
from tests.support.inputs.images import write_images


@pytest.mark.ray
def test_every_part_is_measured(tmp_path: Path, ray_local: None) -> None:
    write_images(tmp_path, 6)
    found = bench_feed([str(tmp_path)], images=6, rows=4, size=32, rounds=1)
    assert list(found) == [
        "fetch",
        "hash",
        "rows and pixels",
        "Ray, in the task",
        "Ray, on the driver",
    ]
    parts = found.values()
    assert all(value >= 0 for value in parts)
    assert found["fetch"] > found["hash"] > 0
    assert found["Ray, in the task"] > 0
