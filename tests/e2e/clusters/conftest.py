"""Machines of a network of their own, and a bucket that they reach."""

from collections.abc import Iterator

import pytest

from tests.support.processes.hosts import Network, why_not
from tests.support.servers.seaweedfs import Bucket, SeaweedFS


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    with Network(3) as network:
        yield network


@pytest.fixture
def bucket(network: Network) -> Iterator[Bucket]:
    with SeaweedFS(network.address) as server:
        yield server.create_bucket()
