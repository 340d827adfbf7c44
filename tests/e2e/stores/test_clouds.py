"""From container to Parquet on Azure and Google, through the public command."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.commands import CallJob
from tests.support.inputs.images import write_images
from tests.support.inputs.tars import tar_bytes
from tests.support.outputs.expiring import check_expiry
from tests.support.outputs.found import (
    BucketOutput,
    check_closed,
    find,
    manifests,
    published,
)
from tests.support.servers.azurite import ACCOUNT, Azurite
from tests.support.servers.clouds import Cloud, Container, proxy_before
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults

pytestmark = pytest.mark.ray

ODD_NAMES = [
    "a b.jpg", "50%20.jpg", "x#y.jpg", "x?y.jpg", "a+b.jpg", "ü/grün.jpg", "x//y.jpg", "/lead.jpg",
    "new\nline.jpg", "[a]*.jpg",
]  # fmt: skip


def rows(container: Container) -> dict[str, dict[str, object]]:
    """The rows of all runs below out/, the newest of each URI."""
    output = BucketOutput(container)
    tables = [pq.read_table(io.BytesIO(output.read(name))) for name in find(output, "data/")]
    return {str(row["uri"]): row for table in tables for row in table.to_pylist()}


@pytest.mark.usefixtures("ray_local")
def test_every_kind_of_input_and_the_nights_after(
    tmp_path: Path, checkpoint: Path, container: Container, call_job: CallJob
) -> None:
    images = [path.read_bytes() for path in write_images(tmp_path / "in", 26)]
    loose = [container.put(f"in/{name}", images[n]) for n, name in enumerate(ODD_NAMES)]
    container.put("in/deep/x.mp4", b"film")
    container.put("in/deep/x.tar", tar_bytes({f"{n}.jpg": images[10 + n] for n in range(5)}))
    table = io.BytesIO()
    pq.write_table(pa.table({"image": images[15:20]}), table)
    container.put("in/y.parquet", table.getvalue())
    listed = [container.put(f"listed/{n} %.jpg", images[20 + n]) for n in range(4)]
    lines = "".join(json.dumps({"uri": uri}) + "\n" for uri in listed[2:])
    lists = [
        container.put("lists/a.txt", "\n".join(listed[:2]).encode()),
        container.put("lists/b.jsonl", lines.encode()),
    ]
    arguments = (f"{container.uri}/in", *lists, "--output", f"{container.uri}/out",
                 "--model", checkpoint, "--num-actors", "1")  # fmt: skip

    first = call_job("classify", *arguments)
    assert first.returncode == 0, first.stderr
    assert "24 images listed = 24 ok + 0 failed + 0 skipped" in first.stdout
    assert "1 file of another kind not taken: 1 mp4" in first.stdout
    assert {*loose, *listed} <= rows(container).keys()
    check_closed(BucketOutput(container), 24)

    quiet = call_job("classify", *arguments)
    assert quiet.returncode == 0, quiet.stderr
    assert "nothing new: 24 images unchanged" in quiet.stdout

    container.put("in/a b.jpg", images[24])
    container.put("in/new.jpg", images[25])
    container.delete("in/x?y.jpg")
    news = call_job("classify", *arguments)
    assert news.returncode == 0, news.stderr
    assert "24 images listed = 2 ok + 0 failed + 22 skipped" in news.stdout
    gone = rows(container)[f"{container.uri}/in/x?y.jpg"]
    assert gone["status"] == "vanished"
    assert manifests(BucketOutput(container))[-1]["vanished"] == [f"{container.uri}/in/x?y.jpg"]
    assert len(rows(container)) == 25
    assert not find(BucketOutput(container), "_"), "nothing is left over"


@pytest.mark.usefixtures("ray_local")
def test_the_account_stays_in_the_uri(
    tmp_path: Path,
    checkpoint: Path,
    azurite: Azurite,
    monkeypatch: pytest.MonkeyPatch,
    call_job: CallJob,
) -> None:
    azurite.enter_environment(monkeypatch)
    container = azurite.create()
    container.put_tree(write_images(tmp_path / "in", 3)[0].parent, "in/")
    root = f"abfs://{container.client.container_name}@{ACCOUNT}.dfs.core.windows.net"
    done = call_job("embed", f"{root}/in", "--output", f"{root}/out", "--model", checkpoint)
    assert done.returncode == 0, done.stderr
    wanted = {f"{root}/in/{n:04d}.jpg" for n in range(3)}
    assert published(BucketOutput(container)).keys() == wanted
    assert f"table:  {root}/out/data/" in done.stdout


@pytest.fixture
def proxy(
    cloud: Cloud, container: Container, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    with proxy_before(cloud, monkeypatch) as proxy:
        yield proxy


@pytest.mark.parametrize("spoiled", ["input", "output"])
@pytest.mark.parametrize("how", ["missing", "denied"])
def test_a_useless_container_is_found_before_the_first_image(
    tmp_path: Path,
    checkpoint: Path,
    container: Container,
    proxy: FaultProxy,
    call_job: CallJob,
    spoiled: str,
    how: str,
) -> None:
    write_images(tmp_path / "in", 1)
    uri = container.uri if how == "denied" else container.uri[:5] + "no-such-container"
    if how == "denied":
        proxy.faults = Faults(access_denied=1.0, pattern=".")
    source = f"{uri}/x" if spoiled == "input" else tmp_path / "in"
    output = f"{uri}/out" if spoiled == "output" else tmp_path / "out"
    done = call_job("embed", source, "--output", output, "--model", checkpoint)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert uri in line
    assert ("does not exist" if how == "missing" else "403") in line
    assert "Traceback" not in done.stderr
    assert not container.keys()


@pytest.mark.slow
@pytest.mark.parametrize("cloud", ["azurite"], indirect=True)
@pytest.mark.usefixtures("ray_local")
def test_credentials_that_expire_stop_the_run_and_cost_no_image(
    tmp_path: Path,
    checkpoint: Path,
    container: Container,
    proxy: FaultProxy,
    call_job: CallJob,
) -> None:
    container.put_tree(write_images(tmp_path / "in", 30)[0].parent)
    faults = Faults(credentials_code="AuthenticationFailed", credentials_status=403, good_gets=10)
    arguments = (container.uri, "--output", tmp_path / "out", "--model", checkpoint)
    said = "Azure answers 403 AuthenticationFailed"
    check_expiry(call_job, arguments, tmp_path / "out", proxy, faults, said)
