"""URIs: whatever is in a name, it comes through unchanged."""

import os

import pytest

from pipeline.storage.uris import join_uri, split_uri

NAMES = [
    "a b.jpg",
    "100%.jpg",
    "%20.jpg",
    "#1.jpg",
    "what?.jpg",
    "a::b.jpg",
    "back\\slash.jpg",
    "ünï/日本.png",
    "~user.jpg",
    "[x]*.jpg",
    "tail /. .jpg",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("root", ["/data", "s3://bucket", "gs://bucket/deep", "https://host"])
def test_uris_split_and_join_unchanged(root: str, name: str) -> None:
    uri = f"{root}/{name}"
    protocol, path = split_uri(uri)
    assert path.endswith(name)
    assert "://" not in path
    assert join_uri(protocol, path) == uri


@pytest.mark.parametrize(
    ("uri", "protocol", "path"),
    [
        ("s3a://bucket/key", "s3", "bucket/key"),
        ("s3://bucket//key", "s3", "bucket//key"),
        ("s3://bucket/dir/", "s3", "bucket/dir/"),
        ("file:///data/x", "file", "/data/x"),
        ("local:///data/x", "file", "/data/x"),
        ("/data/./x/../y", "file", "/data/y"),
        ("photos", "file", f"{os.getcwd()}/photos"),
        ("~/photos", "file", os.path.expanduser("~/photos")),
    ],
)
def test_spellings_of_a_uri(uri: str, protocol: str, path: str) -> None:
    assert split_uri(uri) == (protocol, path)
