"""Over which network the workers of a training reach each other."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.util import get_node_ip_address

_GET_ADDRESS = 0x8915
"""SIOCGIFADDR of Linux."""


class _RaysNetwork(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(listen_where_ray_does)
        super().on_start(worker_group, backend_config)


@dataclass
class RaysNetwork(TorchConfig):
    """Workers meet on the network on which Ray's nodes do. By itself Gloo listens where the name of
    its host leads, which on many machines (Debian's ``127.0.1.1``) no other host reaches."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _RaysNetwork


def listen_where_ray_does() -> None:
    """Tell Gloo which interface has the address by which Ray knows this node, unless somebody has
    told it."""
    if (name := interface_of(get_node_ip_address())) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """The network interface with an IPv4 address; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # of one without an address
                found = fcntl.ioctl(asking, _GET_ADDRESS, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
