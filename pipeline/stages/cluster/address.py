"""The address of a cluster, tried before Ray tries it.

Ray takes a minute to give up on a cluster that is gone, and minutes for an address behind which
something else answers.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import RayError

from pipeline.contract.errors import UsageError, one_line

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""For the name to be resolved, the connection to be made, and Ray to answer over it."""
_RAYLET: Any = import_module("ray._raylet")  # its stubs leave out the client
_ADVICE = (
    "set RAY_ADDRESS to HOST:PORT of the head as `ray start` prints it (the port is 6379 unless "
    "chosen otherwise), or unset it to compute on this machine"
)


def cluster_address() -> str | None:
    """The value of RAY_ADDRESS; None if the run is to start a Ray of its own."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def check_cluster(address: str) -> None:
    """Make sure that a Ray cluster answers at an address.

    Raises:
        UsageError: none does; the message says what is there instead.
    """
    if problem := _malformed(address) or _within(ANSWER_SECONDS, lambda: _problem(address)):
        raise UsageError(f"no Ray cluster at RAY_ADDRESS {_shown(address)}: {problem}; {_ADVICE}")


def _shown(address: str) -> str:
    """The address on one line, without the name and password that one written as a URL may hold."""
    scheme, separator, rest = address.rpartition("://")
    return one_line(scheme + separator + rest.rpartition("@")[2])


def _malformed(address: str) -> str | None:
    scheme, separator, _ = address.partition("://")
    if scheme in ("http", "https"):
        return "this is a dashboard, to which `ray job submit` sends jobs"
    if scheme in ("ray", "anyscale"):
        return f"{scheme}:// leads to Ray Client, through which no run can be driven"
    if address == "auto":
        return None
    host, port = _parts(address)
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) < 2**16
    return None if host and is_port and not separator else "it is not HOST:PORT"


def _parts(address: str) -> tuple[str, str]:
    """Host and port; the host of "[::1]:6379" is "::1"."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _within(seconds: float, ask: Callable[[], str | None]) -> str | None:
    """The answer, or that there is none yet; names and Ray's client know no limit of time."""
    answers: list[str | None] = []
    asking = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    asking.start()
    asking.join(seconds)
    late = f"what answers there does not speak as the head of a cluster within {seconds:g} s"
    return answers[0] if answers else late


def _problem(address: str) -> str | None:
    found = address
    try:
        found = str(canonicalize_bootstrap_address(address))  # "auto", and what localhost means
        host, port = _parts(found)
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        if address != "auto":  # which joins with a token that is found only when joining
            _RAYLET.GcsClient(address=found)
    except (OSError, ValueError, RayError) as error:  # a name that is too long is a ValueError
        reason = one_line(error).rstrip(".")
        return reason if found == address else f"{reason} ({found})"
    return None
