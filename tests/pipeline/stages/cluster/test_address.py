"""A cluster that is gone is told within seconds, whatever RAY_ADDRESS says."""

import socket
import time
from collections.abc import Iterator

import pytest

from pipeline.contract.errors import UsageError
from pipeline.stages.cluster import address as module
from pipeline.stages.cluster.address import check_cluster, cluster_address
from tests.support.processes.process import free_ports


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), ("", None), (" ", None), ("local", None), ("auto", "auto"), (" h:1 ", "h:1")],
)
def test_where_the_run_goes(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() == expected


def complaint(address: str) -> str:
    with pytest.raises(UsageError) as caught:
        check_cluster(address)
    text = str(caught.value)
    assert text.startswith("no Ray cluster at RAY_ADDRESS ")
    assert text.endswith("or unset it to compute on this machine")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "address",
    ["head", "head:", ":6379", "head:0", "head:65536", "head:-1", "head:6379x", "head:6379\n1",
     "head:٦٣٧٩", "redis://head:6379", "[::1]", "::"],
)  # fmt: skip
def test_malformed(address: str) -> None:
    assert ": it is not HOST:PORT; set" in complaint(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://head:8265", "this is a dashboard"),
        ("https://user:SENTINEL@head", "this is a dashboard"),
        ("ray://head:10001", "ray:// leads to Ray Client"),
        ("anyscale://SENTINEL@cluster", "anyscale:// leads to Ray Client"),
    ],
)
def test_addresses_of_other_services(address: str, said: str) -> None:
    text = complaint(address)
    assert said in text
    assert "SENTINEL" not in text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_nobody_listens(host: str) -> None:
    (port,) = free_ports(1)
    text = complaint(f"{host}:{port}")
    assert "refused" in text or "assign" in text  # a machine may have no IPv6
    assert str(port) in text


@pytest.mark.parametrize("host", ["head.invalid", "a b", "x" * 300, "é.invalid"])
def test_names_that_lead_nowhere(host: str) -> None:
    complaint(f"{host}:6379")


def test_no_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(address: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(module, "canonicalize_bootstrap_address", nothing)
    assert ": Could not find any running Ray instance; set RAY_ADDRESS" in complaint("auto")


@pytest.fixture
def mute_server() -> Iterator[int]:
    """A port where connections are accepted and nothing is said."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


def test_something_else_answers(monkeypatch: pytest.MonkeyPatch, mute_server: int) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1.0)
    started = time.monotonic()
    assert "does not speak as the head of a cluster within 1 s" in (
        complaint(f"127.0.0.1:{mute_server}")
    )
    assert time.monotonic() - started < 20  # Ray alone takes 40 s


def test_names_that_are_not_resolved_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(module, "canonicalize_bootstrap_address", lambda name: time.sleep(2))
    assert "within 0.1 s" in complaint("head:6379")
