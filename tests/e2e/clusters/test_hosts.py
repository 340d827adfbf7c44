"""Several machines, really: each with an address, a disk and a wire of its own."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.support.commands import REPOSITORY
from tests.support.processes import victims
from tests.support.processes.hosts import Network, why_not

ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    with Network(3) as network:
        yield network


def test_hosts_share_no_disk_and_have_wires_of_their_own(network: Network) -> None:
    first, second, _ = network.hosts

    def on_first(*command: str) -> int:
        return first.start(command, log="log", env=ENV).wait()

    assert on_first("touch", "/tmp/mine") == 0
    assert (first.disk / "tmp" / "mine").exists()
    assert not (second.disk / "tmp" / "mine").exists()
    assert on_first("test", "-e", str(REPOSITORY / "pipeline" / "runs")) != 0
    second.start([sys.executable, "-m", "http.server", "8000"], log="server", env=ENV)
    connect = f"socket.create_connection(('{second.address}', 8000), 1)"
    reach = (sys.executable, "-c", f"import socket; {connect}")
    victims.wait_until(lambda: on_first(*reach) == 0, "server on the second host")
    first.cut_off(second.address)
    assert on_first(*reach) != 0
    first.reconnect(second.address)
    assert on_first(*reach) == 0
