"""Fetching from a real S3 server, through a proxy that makes requests fail."""

import random
import socket
from itertools import count

import fsspec.config
import pytest
from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    UnauthorizedSSOTokenError,
)

import pipeline.storage.retry
from pipeline.contract.errors import CredentialsError
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
    s3_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.storage.retry, "AWAY_SECONDS", 2)
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


class TestBadCredentials:
    """They are no property of an image: the run stops, and no row tells of them."""

    def test_of_a_wrong_secret(self, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = s3_bucket.put("a.jpg", b"1")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(CredentialsError, match="SignatureDoesNotMatch") as stopped:
            fetch(uri)
        assert "wrong" not in str(stopped.value)

    @pytest.mark.parametrize(
        "said", ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired",
                 "ExpiredTokenException"]
    )  # fmt: skip
    @pytest.mark.parametrize("kind", ["image", "webdataset", "parquet"])
    def test_stop_whatever_is_read(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy, said: str, kind: str
    ) -> None:
        """Parquet is asked for its size first, by a request whose answer cannot tell why."""
        uri = s3_bucket.put("a", b"1")
        fault_proxy.faults = Faults(credentials_code=said)
        with pytest.raises(CredentialsError, match=f"S3 answers 400 {said}.*renew"):
            fetch(uri, kind=kind)

    @pytest.mark.parametrize("kind", ["image", "webdataset", "parquet"])
    def test_are_not_to_blame_for_a_wrong_clock(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy, kind: str
    ) -> None:
        uri = s3_bucket.put("a", b"1")
        fault_proxy.faults = Faults(credentials_code="RequestTimeTooSkewed", credentials_status=403)
        with pytest.raises(CredentialsError, match="RequestTimeTooSkewed") as stopped:
            fetch(uri, kind=kind)
        assert f"the clock of {socket.gethostname()} is 0 minutes" in str(stopped.value)
        assert str(stopped.value).endswith(
            " the server's; set it; then start the same command again"
        )
        assert "renew" not in str(stopped.value)

    def test_that_recover_in_time_cost_nothing(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A new key is not known everywhere at once."""
        uri = s3_bucket.put("a.jpg", b"1")
        fault_proxy.faults = Faults(credentials_code="InvalidAccessKeyId")

        def recover(seconds: float) -> None:
            fault_proxy.faults = Faults()

        monkeypatch.setattr("pipeline.storage.retry.time.sleep", recover)
        assert fetch(uri)[0].data == b"1"

    @pytest.mark.parametrize("said", ["AccessDenied", "SignatureDoesNotMatch", "InvalidToken"])
    def test_are_not_to_blame_for_one_object(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy, said: str
    ) -> None:
        """Some stores sign odd keys in another way; the credentials are good for all others."""
        uris = [s3_bucket.put(f"{name}.jpg", b"1") for name in "abc"]
        fault_proxy.faults = Faults(denied_pattern="b.jpg", denied_code=said)
        assert [code(item) for item in fetch(*uris)] == [None, "access_denied", None]

    @pytest.mark.parametrize(
        "error",
        [NoCredentialsError(), CredentialRetrievalError(provider="iam", error_msg="away"),
         UnauthorizedSSOTokenError()],
    )  # fmt: skip
    def test_may_be_gone(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        """Those of a role or of single sign-on are renewed while the run goes on."""

        def sign(*arguments: object) -> None:
            raise error

        monkeypatch.setattr("pipeline.storage.objects.s3.requests._send", sign)
        with pytest.raises(CredentialsError, match="no usable credentials"):
            fetch("s3://photos/a.jpg")


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
