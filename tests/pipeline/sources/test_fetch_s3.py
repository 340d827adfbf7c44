"""Fetching from a real S3 server, through a proxy that makes requests fail."""

import random
from itertools import count

import fsspec.config
import pytest

import pipeline.storage.retry
from pipeline.storage.retry import DENIED_TRIES, TRIES, Patience
from tests.support.inputs.fetching import MIB, code, fetch
from tests.support.inputs.listing import KEYS
from tests.support.inputs.tars import content, failures, read, tar_bytes
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(pipeline.storage.retry, "AWAY_SECONDS", 0.5)
    Patience.succeed()


def test_keys_are_fetched_as_they_are_listed(s3_bucket: Bucket) -> None:
    keys = [*KEYS, "trailing space .jpg", "a/" * 50 + "x.jpg"]
    items = fetch(*[s3_bucket.put(key, key.encode()) for key in keys])
    assert [item.data for item in items] == [key.encode() for key in keys]


def test_keys_with_empty_components(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    """This server merges slashes, so look at what it was asked for."""
    for key in ("/leading.jpg", "double//slash.jpg", "//a///b.jpg"):
        (item,) = fetch(s3_bucket.put(key, key.encode()))
        assert item.data == key.encode()
        assert fault_proxy.count("GET", path=f"/{s3_bucket.name}/{key}") == 1


def test_image_costs_one_get(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    data = random.Random(0).randbytes(3 * MIB)
    (item,) = fetch(s3_bucket.put("a.jpg", data), max_bytes=4 * MIB)
    assert item.data == data
    assert fault_proxy.count(path=".*a.jpg") == 1


def test_passing_faults_cost_no_image(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    data = {f"{n}.jpg": bytes([n]) * 5000 for n in range(40)}
    uris = [s3_bucket.put(key, body) for key, body in data.items()]
    fault_proxy.faults = Faults(slow_down=0.1, reset=0.1, truncate=0.1, access_denied=0.1, seed=2)
    assert [item.data for item in fetch(*uris)] == list(data.values())
    for fault in ("slow_down", "reset", "truncate", "access_denied"):
        assert fault_proxy.count(fault=fault)


def test_a_stall_is_cut(
    s3_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the timeout of fsspec's configuration, if one stands there."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.2}})
    uri = s3_bucket.put("a.jpg", bytes(5000))
    fault_proxy.faults = faults_at("a.jpg", "stall", None)
    assert fetch(uri)[0].data == bytes(5000)
    fault_proxy.faults = Faults(stall=1)
    assert code(fetch(uri)[0]) == "timeout"
    assert fault_proxy.count(fault="stall") == 1 + TRIES


@pytest.mark.parametrize(
    ("fault", "expected", "requests"),
    [
        ("reset", "storage_error", TRIES),
        ("truncate", "storage_error", TRIES),
        ("access_denied", "access_denied", DENIED_TRIES),
    ],
)
def test_lasting_faults_become_the_row(
    s3_bucket: Bucket, fault_proxy: FaultProxy, fault: str, expected: str, requests: int
) -> None:
    uri = s3_bucket.put("a.jpg", bytes(5000))
    fault_proxy.faults = Faults(**{fault: 1})  # type: ignore[arg-type]
    (item,) = fetch(uri)
    assert code(item) == expected
    assert "test-secret-key" not in str(item.error)
    assert fault_proxy.count("GET", path=".*a.jpg") == requests


def test_a_busy_store_is_waited_for_but_not_for_ever(
    s3_bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    uri = s3_bucket.put("a.jpg", bytes(5000))
    fault_proxy.faults = Faults(slow_down=1)
    (item,) = fetch(uri)
    assert code(item) == "storage_error"
    assert str(item.error) == "S3 answers 503 SlowDown (Please reduce your request rate.)"
    assert fault_proxy.count("GET", path=".*a.jpg") > TRIES


def test_what_is_not_there(s3_bucket: Bucket) -> None:
    s3_bucket.put("a.jpg", b"1")
    assert code(fetch(f"{s3_bucket.uri}/gone.jpg")[0]) == "not_found"
    assert code(fetch(f"{s3_bucket.uri}-gone/a.jpg")[0]) == "not_found"
    assert code(fetch(f"{s3_bucket.uri}//gone.jpg")[0]) == "not_found"
    assert failures(read(f"{s3_bucket.uri}/gone.tar")) == [
        (f"{s3_bucket.uri}/gone.tar", "not_found")
    ]


def test_wrong_secret_is_access_denied(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = s3_bucket.put("a.jpg", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (item,) = fetch(uri)
    assert code(item) == "access_denied"
    assert "wrong" not in str(item.error)


MEMBERS = {f"{n}.jpg": random.Random(n).randbytes(300_000) for n in range(20)}


class TestShard:
    def test_takes_one_request(self, s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
        uri = s3_bucket.put("x.tar", tar_bytes(MEMBERS))
        assert content(read(uri), uri) == MEMBERS
        assert fault_proxy.count(path=".*x.tar") == 1

    def test_is_read_on_when_a_request_fails(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy
    ) -> None:
        """From where it failed: of the first request half the bytes came."""
        uri = s3_bucket.put("x.tar", tar_bytes(MEMBERS))
        fault_proxy.faults = faults_at("x.tar", "truncate", "reset", "truncate", None)
        items = read(uri)
        assert content(items, uri) == MEMBERS
        assert not failures(items)
        assert fault_proxy.count("GET", path=".*x.tar") == 4

    def test_has_one_failed_row_when_the_storage_is_gone(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy
    ) -> None:
        uri = s3_bucket.put("x.tar", tar_bytes(MEMBERS))
        fault_proxy.faults = faults_at("x.tar", "truncate", *["reset"] * TRIES)
        items = read(uri)
        assert 0 < len(content(items, uri)) < len(MEMBERS)
        assert failures(items) == [(uri, "storage_error")]


def faults_at(key: str, *wanted: str | None) -> Faults:
    """Faults whose draws for the first requests of a key fall as wanted."""
    share = 1 / len(set(wanted))
    for seed in count():
        faults = Faults(**{fault: share for fault in wanted if fault}, seed=seed)  # type: ignore[arg-type]
        if all(faults.draw(key, 1 + n) == fault for n, fault in enumerate(wanted)):
            return faults
    raise AssertionError
