from pathlib import Path

import pytest

from jobs.bench.components.reading import bench_reading
from pipeline.contract.errors import UsageError
from tests.support.servers.clouds import Cloud, Container, proxy_before


def test_every_way_reads_every_object(
    cloud: Cloud, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        container.put(f"{n}.jpg", b"x" * 1000)
    with proxy_before(cloud, monkeypatch) as proxy:
        found = bench_reading(container.uri, rounds=2)
        gets = [proxy.count("GET", path=rf".*{n}\.jpg") for n in range(5)]
    ours, *library = found
    assert ours == "as a run does"
    assert [name.partition(", ")[2] for name in library] == ["cat_file", "open and read"]
    assert min(gets) >= 3 * 2, "each way in each round"


def test_only_object_stores_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not in an object store"):
        bench_reading(str(tmp_path), 1)
