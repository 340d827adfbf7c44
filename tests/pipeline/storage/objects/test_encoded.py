"""Objects with ``Content-Encoding: gzip``, as ``gsutil cp -z`` and builders of sites store them."""

import gzip

import pytest

from pipeline.sources.formats.item import Item
from tests.support.inputs.fetching import code, fetch
from tests.support.inputs.tars import MEMBERS, tar_bytes
from tests.support.servers.azurite import AzureContainer
from tests.support.servers.clouds import Container
from tests.support.servers.fake_gcs import GoogleBucket

IMAGE = bytes(range(256)) * 50


def put_encoded(container: Container, key: str, stored: bytes) -> str:
    if isinstance(container, AzureContainer):
        from azure.storage.blob import ContentSettings

        settings = ContentSettings(content_encoding="gzip")
        container.client.upload_blob(key, stored, content_settings=settings)
    elif isinstance(container, GoogleBucket):
        blob = container.bucket.blob(key)
        blob.content_encoding = "gzip"
        blob.upload_from_string(stored, "image/jpeg")
    return f"{container.uri}/{key}"


def only(items: list[Item]) -> Item:
    (item,) = items
    return item


def test_an_image_is_unpacked(container: Container) -> None:
    item = only(fetch(put_encoded(container, "a.jpg", gzip.compress(IMAGE))))
    assert (item.data, item.size_bytes) == (IMAGE, len(IMAGE))


def test_a_limit_holds_for_what_comes_out(container: Container) -> None:
    uri = put_encoded(container, "bomb.jpg", gzip.compress(bytes(10**6)))
    assert code(only(fetch(uri, max_bytes=10**5))) == "too_large"


@pytest.mark.parametrize("stored", [b"no gzip at all", gzip.compress(IMAGE)[:-9]])
def test_what_does_not_unpack_says_so(container: Container, stored: bytes) -> None:
    item = only(fetch(put_encoded(container, "a.jpg", stored)))
    assert code(item) == "storage_error"
    assert "Content-Encoding: gzip" in str(item.error)


def test_a_tar_is_unpacked(container: Container) -> None:
    uri = put_encoded(container, "a.tar", gzip.compress(tar_bytes()))
    items = fetch(uri, kind="webdataset")
    assert {item.uri: item.data for item in items} == {
        f"{uri}#{name}": data for name, data in MEMBERS.items()
    }
