import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import s3fs
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from pyarrow import fs

from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket

BODY = bytes(range(256)) * 400


def read(client: Any, bucket: Bucket, key: str = "key") -> bytes:
    body: bytes = client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
    return body


def test_signed_requests_pass_unharmed(fault_proxy: FaultProxy, s3_bucket: Bucket) -> None:
    through = s3_bucket.server.connect(endpoint=fault_proxy.endpoint)
    name, key = s3_bucket.name, "ü/100% of+it"
    through.put_object(Bucket=name, Key=key, Body=BODY)
    assert s3_bucket.get(key) == BODY
    assert read(through, s3_bucket, key) == BODY
    assert through.head_object(Bucket=name, Key=key)["ContentLength"] == len(BODY)
    assert [entry["Key"] for entry in through.list_objects_v2(Bucket=name)["Contents"]] == [key]
    through.delete_object(Bucket=name, Key=key)
    assert s3_bucket.keys() == []

    assert fault_proxy.count() == 5
    assert fault_proxy.count("GET", path=rf"/{name}/.+") == 1
    stranger = s3_bucket.server.connect(endpoint=fault_proxy.endpoint, secret_key="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.list_objects_v2(Bucket=name)


def test_s3fs_and_pyarrow_go_through_it(fault_proxy: FaultProxy, s3_bucket: Bucket) -> None:
    s3fs.S3FileSystem().pipe_file(f"{s3_bucket.name}/key", BODY)
    arrow, path = fs.FileSystem.from_uri(f"{s3_bucket.uri}/key")
    with arrow.open_input_stream(path) as stream:
        assert stream.read() == BODY
    assert fault_proxy.count("PUT", path=f"/{path}") == 1
    assert fault_proxy.count("GET", path=f"/{path}") == 1


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        (Faults(slow_down=1), ClientError, "SlowDown"),
        (Faults(access_denied=1), ClientError, "AccessDenied"),
        (Faults(reset=1), ConnectionClosedError, "closed before we received a valid response"),
        (Faults(truncate=1), ResponseStreamingError, "IncompleteRead"),
    ],
    ids=lambda value: value.draw("", 1) if isinstance(value, Faults) else "",
)
def test_each_fault_looks_like_the_real_one(
    fault_proxy: FaultProxy,
    s3_bucket: Bucket,
    faults: Faults,
    error: type[Exception],
    message: str,
) -> None:
    s3_bucket.put("key", BODY)
    client = s3_bucket.server.connect(endpoint=fault_proxy.endpoint)
    fault_proxy.faults = faults
    with pytest.raises(error, match=message):
        read(client, s3_bucket)

    # Listings and writes are left alone, and the proxy recovers.
    client.list_objects_v2(Bucket=s3_bucket.name)
    fault_proxy.faults = Faults()
    assert read(client, s3_bucket) == BODY
    assert [request.fault is None for request in fault_proxy.requests] == [False, True, True]


def test_a_reset_is_one_on_the_wire(fault_proxy: FaultProxy) -> None:
    fault_proxy.faults = Faults(reset=1)
    client = http.client.HTTPConnection(fault_proxy.endpoint.removeprefix("http://"))
    client.request("GET", "/bucket/key")
    with pytest.raises(ConnectionResetError, match="reset by peer"):
        client.getresponse()
    client.close()


def test_stall_and_latency_take_their_time(fault_proxy: FaultProxy, s3_bucket: Bucket) -> None:
    s3_bucket.put("key", BODY)
    client = s3_bucket.server.connect(endpoint=fault_proxy.endpoint, read_timeout=0.5)
    fault_proxy.faults = Faults(stall=1)
    with pytest.raises(ReadTimeoutError):
        read(client, s3_bucket)

    client = s3_bucket.server.connect(endpoint=fault_proxy.endpoint)
    fault_proxy.faults = Faults(latency_seconds=0.2)
    began = time.monotonic()
    assert read(client, s3_bucket) == BODY
    assert time.monotonic() - began >= 0.2


def test_faults_hit_their_share_and_repeat_for_a_seed(s3_bucket: Bucket) -> None:
    keys = [f"{index}" for index in range(200)]
    for key in keys:
        s3_bucket.put(key, b"x")

    def failing_keys(seed: int) -> set[str]:
        faults = Faults(slow_down=0.1, access_denied=0.1, seed=seed)
        with FaultProxy(s3_bucket.server.endpoint, faults) as proxy, ThreadPoolExecutor(8) as pool:
            client = s3_bucket.server.connect(endpoint=proxy.endpoint)

            def fails(key: str) -> bool:
                try:
                    return read(client, s3_bucket, key) != b"x"
                except ClientError:
                    return True

            failures = pool.map(fails, keys)
            failed = {key for key, failure in zip(keys, failures, strict=True) if failure}
            shares = [proxy.count(fault="slow_down"), proxy.count(fault="access_denied")]
        assert len(failed) == sum(shares)
        assert all(10 <= share <= 35 for share in shares), shares
        return failed

    once = failing_keys(seed=1)
    assert failing_keys(seed=1) == once
    assert failing_keys(seed=2) != once
    assert Faults(slow_down=0.5).draw("key", 1) != Faults(slow_down=0.5).draw("key", 2)
