"""Listing buckets of a real S3 server."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.output.ledger.hashes import Keys
from pipeline.sources.exclusion import Exclusion
from pipeline.sources.formats.registry import shard_names
from pipeline.sources.inventory import CHUNK_ROWS, inventory
from pipeline.storage.objects.listing.stretches import Helpers
from tests.support.inputs.listing import KEYS, rows, uris
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import Bucket


def test_keys_come_through_unescaped(s3_bucket: Bucket) -> None:
    wanted = [s3_bucket.put(key, key.encode()) for key in KEYS]
    found = rows(s3_bucket.uri)
    assert sorted(row["uri"] for row in found) == sorted(wanted)
    sizes = {row["uri"]: row["size_bytes"] for row in found}
    assert sizes == {f"{s3_bucket.uri}/{key}": len(key.encode()) for key in KEYS}
    for uri in wanted:  # and every one of them is an INPUT of its own, never a pattern
        assert uris(uri) == [uri]


def test_prefix_is_a_directory(s3_bucket: Bucket) -> None:
    wanted = [s3_bucket.put(key, b"") for key in ("pre/a.jpg", "pre/b/c.jpg")]
    for key in ("pre.jpg", "prefix/d.jpg", "pre-2/e.jpg"):
        s3_bucket.put(key, b"")
    assert sorted(uris(f"{s3_bucket.uri}/pre")) == sorted(uris(f"{s3_bucket.uri}/pre/")) == wanted
    assert uris(f"{s3_bucket.uri}/pre//") == uris(f"{s3_bucket.uri}/pre")
    with pytest.raises(UsageError, match="no images under"):
        uris(f"{s3_bucket.uri}/pr")


def test_whole_bucket_in_every_spelling(s3_bucket: Bucket) -> None:
    wanted = [s3_bucket.put("a.jpg", b""), s3_bucket.put("b/c.tar", b"")]
    for spelling in (s3_bucket.uri, f"{s3_bucket.uri}/", f"s3a://{s3_bucket.name}"):
        assert sorted(uris(spelling)) == wanted


def test_globs(s3_bucket: Bucket) -> None:
    for key in ("a.jpg", "d/b.jpg", "d/e/c.jpg", "d2/b.jpg", "d/b.txt"):
        s3_bucket.put(key, b"")

    def keys(pattern: str) -> list[str]:
        return sorted(uri.removeprefix(f"{s3_bucket.uri}/") for uri in uris(pattern))

    assert keys(f"{s3_bucket.uri}/*.jpg") == ["a.jpg"]
    assert keys(f"{s3_bucket.uri}/d*/b.*") == ["d/b.jpg", "d2/b.jpg"]
    assert keys(f"{s3_bucket.uri}/d/**") == ["d/b.jpg", "d/e/c.jpg"]
    assert keys(f"{s3_bucket.uri}/**/c.jpg") == ["d/e/c.jpg"]
    exclusion = Exclusion()
    assert list(inventory(InputSpec(uris=(f"{s3_bucket.uri}/d*/b.*",)), exclusion=exclusion))
    assert exclusion.others.numbers == {"txt": 1}


def test_listing_of_many_pages_is_whole_and_streams(
    s3_bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    """Seen at the server: pages of a thousand, in some ranges, and no request for any object."""
    names = [f"{number:04d}.jpg" for number in range(1003)]
    put_all(s3_bucket, names)
    assert sorted(uris(s3_bucket.uri)) == [f"{s3_bucket.uri}/{name}" for name in names]
    pages = fault_proxy.count(path=f"/{s3_bucket.name}/?")
    assert 2 <= pages <= 8
    assert fault_proxy.count() == pages
    assert CHUNK_ROWS > 1003


def put_all(bucket: Bucket, names: list[str]) -> None:
    fs = s3fs.S3FileSystem(endpoint_url=bucket.server.endpoint)
    fs.pipe({f"{bucket.name}/{name}": b"" for name in names})


class Travelling:
    """Helpers in this process, to whom all goes as to another one."""

    is_ready = True
    at_once = 64

    def __init__(self) -> None:
        self.calls = 0

    def call(self, function: Callable[[], Any]) -> Any:
        self.calls += 1
        return pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))()))


def parquet(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


TREE = {f"{n % 7}/{n:03d}.jpg": b"x" for n in range(90)} | {
    "0/000.tar": b"", "0/000.tar.txt": b"", "3/readme.md": b"", "3/._a.jpg": b"", "3/z.JSON": b"{}",
    "4/a.tar.gz": b"", "4/dir/": b"", "5/images.parquet": parquet(image=[b"1", b"2"]),
    "5/list.parquet": parquet(uri=["a"]), "5/none.parquet": parquet(n=[1]), "6/out/9.jpg": b"",
    "6/raw/x.jpg": b"", "6/raw/y.png": b"",
}  # fmt: skip
"""What may lie in a bucket, by its keys."""


@pytest.mark.parametrize(
    ("where", "options"),
    [
        (["{}"], {}),
        (["{}"], {"exclude": ("raw/", "3/0*.jpg")}),
        (["{}/[3-6]/**"], {"exclude": ("*/06*",)}),
        (["{}/3", "{}", "{}/4"], {}),
        (["{}"], {"format": "webdataset"}),
        (["{}/*/*.parquet"], {"format": "list"}),
        (["{}"], {"exclude": ("**",)}),
        (["{}/nothing"], {}),
        (["{}/3/*.gif"], {}),
    ],
    ids=["all", "exclude", "glob", "inputs", "format", "lists", "none", "empty", "no match"],
)
def test_what_others_list_is_the_same(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, where: list[str], options: dict[str, Any]
) -> None:
    """Rows and their order, counts, warnings, errors; and the keys of the ledger."""
    for key, content in TREE.items():
        s3_bucket.put(key, content)
    monkeypatch.setattr("pipeline.storage.objects.s3.pages.PAGE_KEYS", 5)
    spec = InputSpec(uris=tuple(uri.format(s3_bucket.uri) for uri in where), **options)
    helpers = Travelling()
    alone, helped = everything(spec, None), everything(spec, helpers)
    assert helped == alone
    assert helpers.calls or where == ["{}/nothing"]


def everything(spec: InputSpec, helpers: Helpers | None) -> dict[str, Any]:
    """All that a listing says."""
    exclusion, error = Exclusion(spec.exclude), ""
    tables: list[pa.Table] = []
    try:
        outside = f"{spec.uris[0].partition('/*')[0]}/6/out"
        tables += inventory(spec, exclude=outside, exclusion=exclusion, helpers=helpers)
    except UsageError as raised:
        error = str(raised)
    names = shard_names(spec)
    keys = [vars(Keys.of(table, names)).values() for table in tables]
    bare = [Keys.detach(table) for table in tables]
    return {
        "rows": [row for table in bare for row in table.to_pylist()],
        "schemas": {str(table.schema) for table in bare},
        "hashes": [row for columns in keys for row in zip(*columns, strict=True)],
        "excluded": exclusion.count,
        "others": exclusion.others.numbers,
        "error": error,
    }


def test_directory_markers_are_skipped(s3_bucket: Bucket) -> None:
    s3_bucket.put("d/", b"")
    s3_bucket.put("d/x.jpg/", b"")
    wanted = s3_bucket.put("d/y.jpg", b"")
    assert uris(s3_bucket.uri) == uris(f"{s3_bucket.uri}/d") == [wanted]


def test_version_is_the_etag_and_follows_the_content(s3_bucket: Bucket) -> None:
    def version() -> str:
        (row,) = rows(s3_bucket.uri)
        assert rows(row["uri"])[0] == row  # listed and named alone, it is the same object
        return str(row["source_version"])

    s3_bucket.put("a.jpg", b"one")
    (entry,) = s3_bucket.objects()
    first = version()
    assert first == entry["ETag"].strip('"')
    s3_bucket.put("a.jpg", b"two")
    assert version() != first
    s3_bucket.put("a.jpg", b"one")
    assert version() == first


def test_output_inside_the_input_is_left_out(s3_bucket: Bucket) -> None:
    wanted = s3_bucket.put("a.jpg", b"")
    s3_bucket.put("out/b.jpg", b"")
    assert uris(s3_bucket.uri, exclude=f"{s3_bucket.uri}/out") == [wanted]


def refuse_secret(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    return bucket.uri


def drop_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    return bucket.uri


def close_the_port(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("pipeline.storage.objects.s3.pages.AWAY_SECONDS", 1)
    return bucket.uri


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (refuse_secret, "denied.*credentials"),
        (drop_credentials, "denied.*credentials"),
        (close_the_port, "cannot list.*127.0.0.1:9"),
        (lambda bucket, patch: f"{bucket.uri}-missing", "does not exist"),
        (lambda bucket, patch: f"{bucket.uri}-missing/deep/prefix/", "does not exist"),
        (lambda bucket, patch: f"{bucket.uri}/missing", "no images under"),
        (lambda bucket, patch: "s3://", "cannot list"),
        (lambda bucket, patch: "s3://Not_A_Bucket!/x", "cannot list"),
    ],
    ids=["secret", "no secret", "port", "bucket", "bucket and prefix", "prefix", "no name", "name"],
)
def test_useless_bucket_is_a_usage_error_in_one_line(
    s3_bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Bucket, pytest.MonkeyPatch], str],
    message: str,
) -> None:
    s3_bucket.put("a.jpg", b"")
    uri = spoil(s3_bucket, monkeypatch)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UsageError, match=message) as refusal:
        uris(uri)
    assert uri in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "test-secret-key" not in str(refusal.value)


class TestListOfObjects:
    """A local list is read without S3; only the credentials for what it names are tried."""

    @pytest.fixture
    def list_of_one(self, s3_bucket: Bucket, tmp_path: Path) -> str:
        path = tmp_path / "list.txt"
        path.write_text(f"{s3_bucket.put('a.jpg', b'')}\n")
        return str(path)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("AWS_SECRET_ACCESS_KEY", "wrong", "denied.*SignatureDoesNotMatch.*credentials"),
            ("AWS_ACCESS_KEY_ID", "wrong", "denied.*InvalidAccessKeyId.*credentials"),
        ],
    )
    def test_under_wrong_credentials_is_a_usage_error(
        self, list_of_one: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=message) as refusal:
            uris(list_of_one)
        assert list_of_one in str(refusal.value)
        assert "\n" not in str(refusal.value)

    def test_needs_no_server_yet(self, list_of_one: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert len(uris(list_of_one)) == 1

    def test_asks_for_no_image(self, list_of_one: str, fault_proxy: FaultProxy) -> None:
        assert len(uris(list_of_one)) == 1
        assert [request.path for request in fault_proxy.requests if "a.jpg" in request.path] == []
        assert len(fault_proxy.requests) == 1

    def test_may_name_what_is_missing(
        self, list_of_one: str, s3_bucket: Bucket, tmp_path: Path
    ) -> None:
        """Of a list of millions that is some rows' failure, and no reason not to begin."""
        names = [f"{s3_bucket.uri}/missing.jpg", f"{s3_bucket.uri}-missing/a.jpg"]
        for name in names:
            (tmp_path / "list.txt").write_text(name)
            assert uris(list_of_one) == [name]
