"""From bucket to Parquet on a real S3 server, through the public command."""

import hashlib
import io
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.commands import CallJob, call_main, run_job
from tests.support.inputs.images import write_images
from tests.support.inputs.tars import tar_bytes
from tests.support.outputs.expiring import check_expiry
from tests.support.outputs.found import published_rows
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import ACCESS_KEY, REGION, SECRET_KEY, Bucket

pytestmark = pytest.mark.ray

ODD_NAMES = ["a b.jpg", "50%.jpg", "x#y.jpg", "ümlaut/grün.jpg", "deep/er/still.jpg"]


def test_bucket_in_bucket_out(
    tmp_path: Path, checkpoint: Path, s3_bucket: Bucket, call_job: CallJob
) -> None:
    images = write_images(tmp_path / "in", 12)
    for name, path in zip(ODD_NAMES, images, strict=False):
        s3_bucket.put(f"photos/{name}", path.read_bytes())
    for path in images[len(ODD_NAMES) :]:
        s3_bucket.put(f"photos/{path.name}", path.read_bytes())
    s3_bucket.put("photos/bad.jpg", b"no image at all")
    etag = hashlib.md5(b"no image at all").hexdigest()  # of an object put in one piece
    output = f"{s3_bucket.uri}/results"
    arguments = (f"{s3_bucket.uri}/photos", "--output", output, "--model", checkpoint)

    first = run_job("classify", *arguments, "--with-embeddings")
    assert first.returncode == 0, first.stderr
    assert "13 images listed = 12 ok + 1 failed + 0 skipped" in first.stdout
    secret = s3_bucket.server.env["AWS_SECRET_ACCESS_KEY"]
    assert secret not in first.stdout + first.stderr

    keys = s3_bucket.keys("results/")
    assert not [key for key in keys if "/_open/" in key], "a closed run leaves no staging behind"
    assert not [key for key in keys if secret.encode() in s3_bucket.get(key)]
    latest = json.loads(s3_bucket.get("results/latest.json"))
    data = [key for key in keys if key.startswith(f"results/data/run={latest['run_id']}/")]
    rows = pq.read_table(io.BytesIO(s3_bucket.get(data[0])))
    by_uri = {row["uri"]: row for row in rows.to_pylist()}
    expected = {f"{s3_bucket.uri}/photos/{name}" for name in ODD_NAMES}
    assert expected < set(by_uri)
    bad = by_uri[f"{s3_bucket.uri}/photos/bad.jpg"]
    assert (bad["error_code"], bad["source_version"]) == ("not_an_image", etag)
    embedded = duckdb.sql("SELECT count(*) FROM rows WHERE len(embedding) = 32")
    assert embedded is not None
    assert embedded.fetchall() == [(12,)]

    again = call_job("classify", *arguments, "--with-embeddings")
    assert again.returncode == 0
    assert "nothing new: 13 images unchanged" in again.stdout


ROOM = 10
"""Images in a row group."""
FAULTS: dict[str, Any] = {
    "slow_down": 0.005,
    "access_denied": 0.005,
    "internal_error": 0.005,
    "reset": 0.005,
    "truncate": 0.01,
    "stall": 0.01,
}


@pytest.mark.usefixtures("ray_local")
def test_every_image_ends_right_on_a_store_that_fails(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clean run, and one over what it found in which three requests in a hundred fail."""
    names = [f"{ODD_NAMES[n % 4]}-{n}.jpg" for n in range(300)]
    images = [path.read_bytes() for path in write_images(tmp_path / "in", 380)]
    for name, data in zip(names, images, strict=False):
        s3_bucket.put(f"in/{name}", data)
    tar = s3_bucket.put("in/x.tar", tar_bytes({f"{n}.jpg": images[300 + n] for n in range(40)}))
    table = io.BytesIO()
    pq.write_table(pa.table({"image": images[340:]}), table, row_group_size=ROOM)
    parquet = s3_bucket.put("in/y.parquet", table.getvalue())
    options = (
        *("--model", checkpoint, "--dtype", "float32", "--with-embeddings"),
        *("--max-failure-rate", "0.1"),
    )

    arguments: tuple[str | Path, ...] = (f"{s3_bucket.uri}/in", "--output", tmp_path / "clean")
    assert call_main("classify", *arguments, *options) == 0
    clean = {str(row["uri"]): row for row in published_rows(tmp_path / "clean")}
    assert len(clean) == 380

    loose = [f"{s3_bucket.uri}/in/{name}" for name in names]
    assert set(loose) < set(clean)
    never = f"{s3_bucket.uri}/in/never.jpg"
    slashes = f"{s3_bucket.uri}//in//{names[0]}"  # the server takes slashes together
    (tmp_path / "found.txt").write_text("\n".join([*loose, slashes, never]))
    monkeypatch.setenv("FSSPEC_S3", json.dumps({"config_kwargs": {"read_timeout": 3}}))
    fault_proxy.faults = faults_that_hit("in/x.tar", "in/y.parquet")
    arguments = (tmp_path / "found.txt", tar, parquet, "--output", tmp_path / "out")
    done = run_job("classify", *arguments, *options)
    assert done.returncode == 0, done.stderr
    assert "382 images listed = 381 ok + 1 failed + 0 skipped" in done.stdout
    for fault in FAULTS:
        assert fault_proxy.count("GET", fault=fault) > 0

    rows = {str(row["uri"]): row for row in published_rows(tmp_path / "out")}
    assert rows.pop(never)["error_code"] == "access_denied"
    clean[slashes] = clean[loose[0]]
    assert rows.keys() == clean.keys()
    for uri, row in rows.items():
        assert row["status"] == "ok"
        assert (row["sha256"], row["label_id"]) == (clean[uri]["sha256"], clean[uri]["label_id"])
        found, wanted = np.array(row["embedding"]), np.array(clean[uri]["embedding"])
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def faults_that_hit(tar: str, parquet: str) -> Faults:
    """Such that both shards break in the middle, too."""
    for seed in count():
        faults = Faults(
            **FAULTS,
            pattern=r"^/[^/]+/+in/",
            denied_pattern=r"never\.jpg$",
            seed=seed,
        )
        if faults.draw(tar, 1) == "truncate" and faults.draw(parquet, 2) in ("stall", "reset"):
            return faults
    raise AssertionError


def test_a_profile_is_enough(
    tmp_path: Path, checkpoint: Path, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable but its name, on the driver; the workers get what it says."""
    for path in write_images(tmp_path / "in", 4):
        s3_bucket.put(path.name, path.read_bytes())
    server = s3_bucket.server
    (tmp_path / "config").write_text(
        f"[profile lab]\nendpoint_url = {server.endpoint}\nregion = {REGION}\n"
        f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    for name in server.env:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    done = run_job(
        "classify", s3_bucket.uri, "--output", f"{s3_bucket.uri}/out", "--model", checkpoint
    )
    assert done.returncode == 0, done.stderr
    assert "4 images listed = 4 ok" in done.stdout
    texts = [done.stdout, done.stderr, *(str(s3_bucket.get(key)) for key in s3_bucket.keys("out/"))]
    assert not [text for text in texts if SECRET_KEY in text]


def wrong_secret(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    return bucket.uri, "denied"


def wrong_profile(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("AWS_PROFILE", "typo")
    return bucket.uri, "typo"


def missing_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    return "s3://no-such-bucket", "does not exist"


@pytest.mark.parametrize("spoil", [wrong_secret, wrong_profile, missing_bucket])
def test_a_useless_input_is_found_before_the_first_image(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    call_job: CallJob,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Bucket, pytest.MonkeyPatch], tuple[str, str]],
) -> None:
    s3_bucket.put("a.jpg", b"1")
    uri, message = spoil(s3_bucket, monkeypatch)
    done = call_job("embed", f"{uri}/x", "--output", tmp_path / "out", "--model", checkpoint)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + caplog.text
    assert fault_proxy.count("GET", path=".*jpg") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", [wrong_secret, missing_bucket])
def test_a_useless_output_is_found_before_the_first_image(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    call_job: CallJob,
    spoil: Callable[[Bucket, pytest.MonkeyPatch], tuple[str, str]],
) -> None:
    write_images(tmp_path / "in", 1)
    uri, _ = spoil(s3_bucket, monkeypatch)
    done = call_job("embed", tmp_path / "in", "--output", f"{uri}/out", "--model", checkpoint)
    assert done.returncode == 2, done.stderr
    assert f"{uri}/out" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_credentials_that_expire_stop_the_run_and_cost_no_image(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    call_job: CallJob,
) -> None:
    for path in write_images(tmp_path / "in", 30):
        s3_bucket.put(path.name, path.read_bytes())
    arguments = (s3_bucket.uri, "--output", tmp_path / "out", "--model", checkpoint)
    faults = Faults(credentials_code="ExpiredToken", good_gets=10)
    check_expiry(call_job, arguments, tmp_path / "out", fault_proxy, faults, "ExpiredToken")
