import pytest
import s3fs
from botocore.exceptions import ClientError
from pyarrow import fs

from tests.support.servers.seaweedfs import Bucket

KEYS = ["a b/100%#1.jpg", "plain.jpg", "ü/日本.png"]


def test_clients_find_the_bucket_through_the_environment(s3_bucket: Bucket) -> None:
    for key in KEYS:
        s3_bucket.put(key, key.encode())

    through_s3fs = s3fs.S3FileSystem()
    through_arrow, root = fs.FileSystem.from_uri(s3_bucket.uri)

    found = through_s3fs.find(s3_bucket.name)
    assert sorted(found) == [f"{s3_bucket.name}/{key}" for key in KEYS]
    assert [through_s3fs.cat_file(path).decode() for path in sorted(found)] == KEYS
    with through_arrow.open_input_stream(f"{root}/{KEYS[0]}") as stream:
        assert stream.read().decode() == KEYS[0]


def test_writes_of_clients_arrive(s3_bucket: Bucket) -> None:
    parts = bytes(12 << 20)  # more than one part of a multipart upload
    arrow, root = fs.FileSystem.from_uri(s3_bucket.uri)
    with arrow.open_output_stream(f"{root}/arrow") as stream:
        stream.write(parts)
    s3fs.S3FileSystem().pipe_file(f"{s3_bucket.name}/s3fs", b"small")

    assert s3_bucket.get("arrow") == parts
    assert s3_bucket.keys() == ["arrow", "s3fs"]
    s3_bucket.delete("arrow")
    assert s3_bucket.keys() == ["s3fs"]


def test_each_bucket_is_empty_and_lists_beyond_one_page(s3_bucket: Bucket) -> None:
    assert s3_bucket.keys() == []
    for index in range(1001):
        s3_bucket.put(f"{index:04d}", b"")
    assert len(s3_bucket.keys()) == 1001


def test_wrong_secret_and_missing_bucket_are_refused(s3_bucket: Bucket) -> None:
    s3_bucket.put("key", b"")
    stranger = s3_bucket.server.connect(secret_key="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.get_object(Bucket=s3_bucket.name, Key="key")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        Bucket(s3_bucket.server, "never-created").put("key", b"")
