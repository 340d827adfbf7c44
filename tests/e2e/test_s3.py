"""From bucket to Parquet on a real S3 server, through the public command."""

import hashlib
import io
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tests.support.samples import run_job, write_images
from tests.support.seaweedfs import Bucket

ODD_NAMES = ["a b.jpg", "50%.jpg", "x#y.jpg", "ümlaut/grün.jpg", "deep/er/still.jpg"]


def test_bucket_in_bucket_out(tmp_path: Path, checkpoint: Path, s3_bucket: Bucket) -> None:
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

    again = run_job("classify", *arguments, "--with-embeddings")
    assert again.returncode == 0
    assert "nothing new: 13 images unchanged" in again.stdout


def test_a_missing_bucket_is_found_before_the_first_image(
    tmp_path: Path, checkpoint: Path, s3_bucket: Bucket
) -> None:
    done = run_job(
        "embed", "s3://no-such-bucket/x", "--output", tmp_path / "out", "--model", checkpoint
    )
    assert done.returncode == 2
    assert "s3://no-such-bucket/x" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
