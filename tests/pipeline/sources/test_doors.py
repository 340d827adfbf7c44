"""What a list may name, and what it may not: it is other people's input to a job with rights."""

from pathlib import Path

import fsspec
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import NO_COLUMNS
from pipeline.contract.spec import InputSpec
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.inventory import inventory
from tests.support.inputs.fetching import MIB, code, fetch, work
from tests.support.servers.web_server import Answer, serve


def read(spec: InputSpec) -> list[Item]:
    """What a run would have of its INPUTs."""
    options = ReadOptions.of(spec, NO_COLUMNS)
    found = [work(*table.to_pylist()) for table in inventory(spec)]
    return [item for table in found for item in fetch_items(table, MIB, options)]


def remote_list(*lines: str) -> str:
    """The URI of a list that is not local."""
    fsspec.filesystem("memory").pipe_file("/lists/l.txt", "\n".join(lines).encode())
    return "memory://lists/l.txt"


@pytest.mark.parametrize(
    "uri",
    ["foo://bar/x.jpg", "sftp://h/x.jpg", "ftp://h/x.jpg", "generic://http://127.0.0.1/x.jpg",
     "simplecache::http://127.0.0.1/x.jpg", "filecache::s3://b/x.jpg", "zip://a.jpg::/tmp/x.zip",
     "memory://b/x.jpg", "reference://x", "github://o:r@/x", "data://x", "file:///etc/passwd",
     "FILE:///etc/passwd", "local:///etc/passwd", "://x", "jdbc:http://127.0.0.1/"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["image", "webdataset", "parquet"])
def test_other_protocols_are_refused(uri: str, kind: str) -> None:
    (item,) = fetch(uri, kind=kind)
    assert code(item) == "url_refused"


def test_no_server_is_asked_through_another_protocol() -> None:
    with serve() as web:
        web.answers["/x.jpg"] = [Answer(body=b"secret")]
        inner = web.url("/x.jpg")
        fetch(f"generic://{inner}", f"simplecache::{inner}", f"filecache::{inner}", inner)
        assert not web.asked


def test_a_protocol_can_be_allowed(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/photos/a.jpg", b"a")
    (tmp_path / "l.txt").write_text("memory://photos/a.jpg\n")
    uris = (str(tmp_path / "l.txt"),)
    (refused,) = read(InputSpec(uris=uris))
    assert code(refused) == "url_refused"
    assert "--allow-protocols memory" in str(refused.error)
    (read_now,) = read(InputSpec(uris=uris, allow_protocols=("memory",)))
    assert read_now.data == b"a"


def test_the_protocol_of_an_input_is_allowed() -> None:
    fsspec.filesystem("memory").pipe_file("/photos/a.jpg", b"a")
    items = read(
        InputSpec(uris=(remote_list("memory://photos/a.jpg", "../photos/a.jpg", "x.jpg"),))
    )
    assert [code(item) for item in items] == [None, "not_found", "not_found"]


@pytest.mark.parametrize("protocol", ["file", "local", "generic", "simplecache::http", "S3", "a b"])
def test_what_cannot_be_allowed(protocol: str) -> None:
    with pytest.raises(UsageError, match=r"<?inputs\.allow_protocols"):
        InputSpec(uris=("x",), allow_protocols=(protocol,))


class TestLocalFiles:
    """Of the machine that reads a list which lies elsewhere."""

    NAMES = ("{}", "file://{}", "FILE://{}", "local://{}", "/proc/../{}", "//{}")

    @pytest.mark.parametrize("name", NAMES)
    def test_are_not_read(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        (item,) = read(InputSpec(uris=(remote_list(name.format(tmp_path / "secret.jpg")),)))
        assert code(item) == "url_refused"
        assert item.uri.startswith("file://")
        assert "--allow-local-files" in str(item.error)
        assert item.size_bytes is None, "not even whether there is such a file is told"

    @pytest.mark.parametrize("name", NAMES)
    def test_are_read_if_that_is_wanted(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "own.jpg"
        path.write_bytes(b"own")
        spec = InputSpec(uris=(remote_list(name.format(path)),), allow_local_files=True)
        (item,) = read(spec)
        assert (item.uri, item.data) == (str(path), b"own")

    def test_of_a_local_list_are_its_business(self, tmp_path: Path) -> None:
        (tmp_path / "own.jpg").write_bytes(b"own")
        (tmp_path / "l.txt").write_text(f"own.jpg\nfile://{tmp_path}/own.jpg\n")
        (item,) = read(InputSpec(uris=(str(tmp_path / "l.txt"),)))
        assert (item.uri, item.data) == (f"{tmp_path}/own.jpg", b"own")
