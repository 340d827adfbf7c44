"""Where Gloo is told to listen."""

import os

import pytest

from pipeline.stages.train.talk import wires
from pipeline.stages.train.talk.wires import interface_of, listen_where_ray_does


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.7") is None
    assert interface_of("::1") is None


def test_gloo_is_told_unless_somebody_has_told_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(os, "environ", {})
    listen_where_ray_does()
    assert os.environ == {"GLOO_SOCKET_IFNAME": "lo"}
    os.environ["GLOO_SOCKET_IFNAME"] = "eth7"
    listen_where_ray_does()
    assert os.environ == {"GLOO_SOCKET_IFNAME": "eth7"}
