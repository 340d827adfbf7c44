"""What all tests share: servers and networks, each made when the first test asks for it."""

import gc
import os
import secrets
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec.config
import pytest
import s3fs

from tests.support import needs
from tests.support.servers.azurite import Azurite
from tests.support.servers.clouds import Cloud, Container
from tests.support.servers.fake_gcs import FakeGcs
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import Bucket, SeaweedFS

if TYPE_CHECKING:  # torch and transformers are imported by the tests that need them
    from tests.support.models.oracle import Oracle

# Nothing of the machine's own accounts may decide a test, and no test asks the network.
_STORES = ("AWS_", "AZURE_", "GOOGLE_", "GCSFS_", "STORAGE_EMULATOR_", "FSSPEC_")
_FOREIGN = (*_STORES, "RAY_", "HF_")
_HERMETIC = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # or gcsfs asks Google itself about each bucket
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # or the processes that share the cores wait for each other's threads
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# At once, for ray and hub clients read them when they are imported, by other conftests also.
for _name in [name for name in os.environ if name.startswith(_FOREIGN)]:
    del os.environ[_name]
os.environ.update(_HERMETIC)


def pytest_configure(config: pytest.Config) -> None:
    """Give Ray a place and a secret of its own before anything imports it."""
    # In /tmp whatever TMPDIR says: the path of a Unix socket in it has to stay below 108 bytes.
    ray = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
    config.add_cleanup(ray.cleanup)
    token = Path(ray.name) / "token"
    token.write_text(secrets.token_hex(32))
    os.environ.update(RAY_TMPDIR=ray.name, RAY_AUTH_TOKEN_PATH=str(token))


@pytest.hookimpl(tryfirst=True)  # before those without a mark are chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needs.mark(item)


def pytest_collection_finish() -> None:
    """What has been imported stays, and so do the tests: whoever collects garbage from here on need
    not look at these millions of objects, which takes seconds each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with needs.withhold(item):
        return (yield)


@pytest.fixture(autouse=True)
def storage_as_found() -> Iterator[None]:
    """What a worker is told about storage counts for its process, which may be everybody's here."""
    yield
    fsspec.config.conf.clear()
    for name in _of_storage().keys() - _HERMETIC.keys():
        del os.environ[name]


def _of_storage() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_STORES)}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedFS]:
    """A real S3 server; ``s3_bucket`` is what most tests want of it."""
    with SeaweedFS() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new empty bucket, with AWS_* set so that s3:// leads to its server."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the endpoint it was made with
    return s3_server.create_bucket()


@pytest.fixture
def fault_proxy(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy through which s3:// leads to ``s3_bucket``; harmless until its ``faults`` are set."""
    with FaultProxy(s3_bucket.server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """A real server of Azure's blobs."""
    with Azurite() as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[FakeGcs]:
    """A server of Google's interface."""
    with FakeGcs() as server:
        yield server


@pytest.fixture(params=["azurite", "fake_gcs"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A server of Azure or Google, to which az:// or gs:// leads."""
    server: Cloud = request.getfixturevalue(request.param)
    server.enter_environment(monkeypatch)
    return server


@pytest.fixture
def container(cloud: Cloud) -> Container:
    """A new empty container of ``cloud``."""
    return cloud.create()


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Ray in this process's name with two CPUs, for tests of the graph."""
    import ray

    _start_ray()
    yield
    ray.shutdown()


def _start_ray() -> None:
    """Much as a run starts its own, whose workers are forks."""
    from pipeline.stages.cluster import ray_session as cluster
    from pipeline.stages.cluster.own.helpers import without_helpers

    options = {
        "num_cpus": 2,
        "include_dashboard": False,
        "object_store_memory": 256 << 20,
        "log_to_driver": False,
        # As a run's own Ray: whoever has imported torch is kept for the next test.
        "_system_config": {"idle_worker_killing_time_threshold_ms": cluster.IDLE_WORKER_MS},
    }
    with without_helpers():
        cluster.start_ray("local", options)


@pytest.fixture
def ray_of_its_own() -> Iterator[None]:
    """There is none for one test, which starts what it needs: trainings are no forks."""
    import ray

    was_there = ray.is_initialized()
    ray.shutdown()
    yield
    ray.shutdown()
    if was_there:
        _start_ray()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for whole runs."""
    from tests.support.models.checkpoints import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def cvt13() -> "Oracle":
    """CvT-13 with 1000 classes."""
    from tests.support.models.oracle import oracle

    return oracle(num_labels=1000)


@pytest.fixture(scope="session")
def cvt13_dir(cvt13: "Oracle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cvt-13")
    cvt13.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small() -> "Oracle":
    """Heads of 8 channels, 7 classes: seconds become milliseconds."""
    from tests.support.models.oracle import SMALL, oracle

    return oracle(**SMALL)


@pytest.fixture(scope="session")
def small_dir(small: "Oracle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    small.save_pretrained(folder)
    return folder
