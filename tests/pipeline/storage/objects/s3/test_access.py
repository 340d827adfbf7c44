"""Profiles, regions, public buckets and requester pays, on a real S3 server behind a proxy."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec.config
import pytest
import s3fs

import pipeline.storage.objects.s3.access
import pipeline.storage.objects.s3.requests
from pipeline.contract.errors import UsageError
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.store import Store
from tests.support.inputs.fetching import MIB, code, fetch
from tests.support.inputs.listing import uris
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import ACCESS_KEY, PUBLIC_BUCKET, SECRET_KEY, Bucket, SeaweedFS

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test configures is nothing to the next."""
    monkeypatch.setattr(fsspec.config, "conf", {})
    monkeypatch.setattr(pipeline.storage.objects.s3.access, "_resolved", {})
    monkeypatch.setattr(pipeline.storage.objects.s3.requests, "_regions", {})
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Set fsspec's options as FSSPEC_S3_* variables do; as a process sees them from its start."""

    def set_variables(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"FSSPEC_S3_{name.upper()}", value)
        fsspec.config.set_conf_env(fsspec.config.conf)

    return set_variables


def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


@pytest.fixture
def profile(
    tmp_path: Path, s3_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """All that the server needs stands in a profile, and nothing of it in the environment."""
    without_credentials(monkeypatch)
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    config = tmp_path / "aws-config"
    config.write_text(
        f"[profile lab]\nregion = eu-north-1\nservices = lab\n"
        f"[services lab]\ns3 =\n  endpoint_url = {fault_proxy.endpoint}\n"
        "[profile expiring]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = lab\n"
    )
    keys = tmp_path / "aws-credentials"
    keys.write_text(
        f"[lab]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    return config


class TestProfile:
    def test_lists_writes_and_reads(
        self, profile: Path, s3_bucket: Bucket, fault_proxy: FaultProxy
    ) -> None:
        uri = s3_bucket.put("a.jpg", b"bytes")
        assert uris(s3_bucket.uri) == [uri]
        assert fetch(uri)[0].data == b"bytes"
        Store(f"{s3_bucket.uri}/out").write_bytes("x", b"1")
        assert s3_bucket.get("out/x") == b"1"
        assert {request.region for request in fault_proxy.requests} == {"eu-north-1"}

    def test_reaches_workers_that_do_not_have_it(
        self, profile: Path, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = s3_bucket.put("a.jpg", b"bytes")
        environment = pickle.loads(pickle.dumps(WorkerEnvironment.capture()))
        assert SECRET_KEY not in repr(environment)
        profile.unlink()
        profile.with_name("aws-credentials").unlink()
        monkeypatch.delenv("AWS_PROFILE")
        environment.apply()
        assert "AWS_PROFILE" not in os.environ
        assert fetch(uri)[0].data == b"bytes"

    def test_of_credentials_that_expire_is_the_workers_own(
        self, profile: Path, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_PROFILE", "expiring")
        environment = WorkerEnvironment.capture()
        assert environment.variables["AWS_PROFILE"] == "expiring"
        assert "AWS_SECRET_ACCESS_KEY" not in environment.variables
        profile.unlink()  # on a machine that has no such profile
        environment.apply()
        with pytest.raises(UsageError, match=r"expiring.*check AWS_PROFILE and ~/\.aws"):
            fetch(f"{s3_bucket.uri}/a.jpg")

    def test_that_is_not_there_is_a_usage_error(
        self, profile: Path, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_PROFILE", "typo")
        with pytest.raises(UsageError, match="typo"):
            uris(s3_bucket.uri)


def test_worker_without_credentials_ends_the_run(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver signs, no worker asks for unsigned, or all images would be denied."""
    uri = s3_bucket.put("a.jpg", b"1")
    assert uris(s3_bucket.uri) == [uri]
    environment = WorkerEnvironment.capture()
    without_credentials(monkeypatch)
    WorkerEnvironment({}, environment.fsspec_config).apply()
    with pytest.raises(UsageError, match="no AWS credentials found on"):
        fetch(uri)


def test_region_of_the_bucket_is_found(
    s3_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    wanted = [s3_bucket.put(f"{n}.jpg", b"1") for n in range(3)]
    fault_proxy.region = "eu-central-1"
    assert sorted(uris(s3_bucket.uri)) == wanted
    for uri in wanted:
        assert fetch(uri)[0].data == b"1"
    regions = [request.region for request in fault_proxy.requests]
    assert regions == ["us-east-1"] + ["eu-central-1"] * 4  # one refusal, whoever asks first
    Store(f"{s3_bucket.uri}/out").write_bytes("x", b"1")


@pytest.fixture
def public_bucket(s3_server: SeaweedFS, s3_bucket: Bucket) -> Bucket:
    try:
        return s3_server.create_bucket(PUBLIC_BUCKET)
    except s3_server.client.exceptions.BucketAlreadyOwnedByYou:
        return Bucket(s3_server, PUBLIC_BUCKET)


class TestPublicBucket:
    def test_is_read_where_there_are_no_credentials(
        self, public_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = public_bucket.put("none.jpg", b"1")
        without_credentials(monkeypatch)
        assert uri in uris(public_bucket.uri)
        assert fetch(uri)[0].data == b"1"
        assert {request.region for request in fault_proxy.requests} == {None}

    def test_is_read_unsigned_where_that_is_wished(
        self, public_bucket: Bucket, fault_proxy: FaultProxy, configure: Configure
    ) -> None:
        uri = public_bucket.put("wished.jpg", b"1")
        configure(anon="true")
        assert uri in uris(public_bucket.uri)
        WorkerEnvironment.capture().apply()
        assert fetch(uri)[0].data == b"1"
        assert {request.region for request in fault_proxy.requests} == {None}

    def test_private_one_is_denied(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = s3_bucket.put("a.jpg", b"1")
        without_credentials(monkeypatch)
        with pytest.raises(UsageError, match="denied"):
            uris(s3_bucket.uri)
        assert code(fetch(uri)[0]) == "access_denied"

    def test_false_is_no_wish(
        self, s3_bucket: Bucket, fault_proxy: FaultProxy, configure: Configure
    ) -> None:
        """To s3fs itself, any text is."""
        configure(anon="False", requester_pays="0")
        uri = s3_bucket.put("a.jpg", b"1")
        assert uris(s3_bucket.uri) == [uri]
        assert fetch(uri)[0].data == b"1"
        assert not [r for r in fault_proxy.requests if "x-amz-request-payer" in r.headers]


def test_requester_pays_for_every_request(
    s3_bucket: Bucket, fault_proxy: FaultProxy, configure: Configure
) -> None:
    configure(requester_pays="true")
    uri = s3_bucket.put("a.jpg", b"1")
    assert uris(s3_bucket.uri) == uris(uri) == [uri]
    assert fetch(uri, max_bytes=MIB)[0].data == b"1"
    assert {request.method for request in fault_proxy.requests} == {"GET", "HEAD"}
    payers = {request.headers.get("x-amz-request-payer") for request in fault_proxy.requests}
    assert payers == {"requester"}


def test_keys_in_fsspecs_configuration(
    s3_bucket: Bucket, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3_bucket.put("a.jpg", b"1")
    without_credentials(monkeypatch)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    configure(key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=endpoint)
    assert uris(s3_bucket.uri) == [uri]
    assert fetch(uri)[0].data == b"1"
