"""Fetching from a real S3 server, through a proxy that makes requests fail."""

import random
from collections.abc import Iterator
from itertools import count

import pytest

import pipeline.fetch
from tests.pipeline.test_fetch import MIB, code, fetch
from tests.pipeline.test_fetch_tar import content, failures, read, tar_bytes
from tests.pipeline.test_inventory_s3 import KEYS
from tests.support.fault_proxy import FaultProxy, Faults
from tests.support.seaweedfs import Bucket


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of our own; those between the three tries of pyarrow's client are not ours to change."""
    monkeypatch.setattr(pipeline.fetch, "RETRY_PAUSES_SECONDS", (0.01,))
    pipeline.fetch._s3.cache_clear()  # it keeps the credentials it was made with
    yield
    pipeline.fetch._s3.cache_clear()


def test_keys_are_fetched_as_they_are_listed(s3_bucket: Bucket) -> None:
    keys = [*KEYS, "trailing space .jpg", "a/" * 50 + "x.jpg"]
    items = fetch(*[s3_bucket.put(key, key.encode()) for key in keys])
    assert [item.data for item in items] == [key.encode() for key in keys]


def test_keys_with_empty_components(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    """pyarrow refuses such paths. This server merges slashes, so look at what it was asked for."""
    for key in ("/leading.jpg", "double//slash.jpg", "//a///b.jpg"):
        (item,) = fetch(s3_bucket.put(key, key.encode()))
        assert item.data == key.encode()
        assert fault_proxy.count("GET", path=f"/{s3_bucket.name}/{key}") == 1


def test_image_costs_one_get(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    data = random.Random(0).randbytes(3 * MIB)
    (item,) = fetch(s3_bucket.put("a.jpg", data), max_bytes=4 * MIB)
    assert item.data == data
    assert fault_proxy.count("GET", path=".*a.jpg") == 1


def test_passing_faults_cost_no_image(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    data = {f"{n}.jpg": bytes([n]) * 5000 for n in range(20)}
    uris = [s3_bucket.put(key, body) for key, body in data.items()]
    fault_proxy.faults = Faults(slow_down=0.15, reset=0.15, truncate=0.15)
    assert [item.data for item in fetch(*uris)] == list(data.values())
    for fault in ("slow_down", "reset", "truncate"):
        assert fault_proxy.count(fault=fault)


@pytest.mark.parametrize(
    ("fault", "expected", "requests"),
    [("slow_down", "storage_error", 6), ("access_denied", "access_denied", 1)],
)
def test_lasting_faults_become_the_row(
    s3_bucket: Bucket, fault_proxy: FaultProxy, fault: str, expected: str, requests: int
) -> None:
    """Two tries of ours, each of three of pyarrow's client; none after a clear refusal."""
    # Of objects smaller than the error's text, pyarrow can only say that something failed.
    uri = s3_bucket.put("a.jpg", bytes(5000))
    fault_proxy.faults = Faults(**{fault: 1})  # type: ignore[arg-type]
    (item,) = fetch(uri)
    assert code(item) == expected
    assert "test-secret-key" not in str(item.error)
    assert fault_proxy.count("GET", path=".*a.jpg") == requests


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
    def test_takes_few_requests(self, s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
        uri = s3_bucket.put("x.tar", tar_bytes(MEMBERS))
        assert content(read(uri), uri) == MEMBERS
        assert fault_proxy.count("GET", path=".*x.tar") == 2  # 6 MB in buffers of 4 MiB

    def test_is_read_on_when_a_request_fails(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy
    ) -> None:
        """The second request fails until pyarrow gives up; then the tar is opened anew."""
        uri = s3_bucket.put("x.tar", tar_bytes(MEMBERS))
        fault_proxy.faults = faults_at("reset", "x.tar", [False] + [True] * 4 + [False] * 4)
        items = read(uri)
        assert content(items, uri) == MEMBERS
        assert not failures(items)
        assert fault_proxy.count("GET", fault="reset") == 4

    def test_has_one_failed_row_when_the_storage_is_gone(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy
    ) -> None:
        uri = s3_bucket.put("x.tar", tar_bytes(MEMBERS))
        fault_proxy.faults = faults_at("slow_down", "x.tar", [False] + [True] * 7)
        items = read(uri)
        assert 0 < len(content(items, uri)) < len(MEMBERS)
        assert failures(items) == [(uri, "storage_error")]


def faults_at(fault: str, key: str, wanted: list[bool]) -> Faults:
    """Faults whose draws for the first requests of a key fall as wanted."""
    for seed in count():
        faults = Faults(**{fault: 0.5}, seed=seed)  # type: ignore[arg-type]
        if [bool(faults.draw(key, 1 + n)) for n in range(len(wanted))] == wanted:
            return faults
    raise AssertionError
