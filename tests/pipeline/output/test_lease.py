"""One run at a time: who holds the lease, who leaves, who takes over."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.contract.errors import RunError
from pipeline.contract.layout import LEASE
from pipeline.output.lease import Lease
from pipeline.storage.store import Store
from tests.support.processes.victims import wait_until
from tests.support.servers.clouds import Cloud, Container, proxy_before
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket


def test_the_lease_is_gone_after_use(tmp_path: Path) -> None:
    with Lease(Store(str(tmp_path))) as lease:
        lease.check()
        held = json.loads((tmp_path / LEASE).read_text())
        assert held["pid"] == os.getpid()
    assert not (tmp_path / LEASE).exists()


def test_a_second_run_leaves_when_the_first_shows_life(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lease(store, renew_seconds=0.2) as first:
        with pytest.raises(RunError, match=r"another run is at work on .*process \d+"):
            Lease(store, stale_seconds=5).__enter__()
        first.check()


def test_a_stale_lease_is_taken_over_and_its_holder_finds_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lease(store, renew_seconds=100) as sleeper:
        with Lease(store, stale_seconds=0.5) as second:
            with pytest.raises(RunError, match="another run has taken over"):
                sleeper.check()
            second.check()
        assert not store.exists(LEASE)


def test_the_lease_of_a_killed_process_of_this_machine_is_stale_at_once(tmp_path: Path) -> None:
    hold = (
        "import os, sys; from pipeline.output.lease import Lease; "
        "from pipeline.storage.store import Store; "
        "Lease(Store(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", hold, str(tmp_path)], check=False)
    assert done.returncode == -9
    with Lease(Store(str(tmp_path)), stale_seconds=1000) as lease:
        lease.check()


SHIFTED = """
import datetime, os, time
seconds = float(os.environ["CLOCK_AHEAD"])
ours, real = time.time, datetime.datetime
class Shifted(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=seconds)
time.time = lambda: ours() + seconds
datetime.datetime = Shifted
"""


@pytest.mark.parametrize("ahead", [-600, 600])
def test_clocks_minutes_apart(tmp_path: Path, ahead: int) -> None:
    """A process of another host, by its clock and by what it says of itself, holds the lease."""
    (tmp_path / "sitecustomize.py").write_text(SHIFTED)
    hold = (
        "import sys, time, pipeline.output.lease as lease; "
        "from pipeline.storage.store import Store; "
        "lease._process_identity = lambda pid: f'elsewhere 1 {pid} 1'; "
        "lease.Lease(Store(sys.argv[1]), renew_seconds=0.2).__enter__(); time.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    env = os.environ | {"CLOCK_AHEAD": str(ahead), "PYTHONPATH": path}
    store = Store(str(tmp_path / "out"))
    with subprocess.Popen([sys.executable, "-c", hold, store.path()], env=env) as other:
        wait_until(lambda: store.exists(LEASE), "the lease of the other")
        renewed = datetime.fromisoformat(store.read_json(LEASE)["renewed"])
        assert abs((renewed - datetime.now(UTC)).total_seconds() - ahead) < 60
        with pytest.raises(RunError, match="another run is at work"):
            Lease(store, stale_seconds=30).__enter__()
        other.kill()
    with Lease(store, stale_seconds=0.5) as lease:
        lease.check()


def test_the_lease_of_another_machine_has_to_run_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    foreign = {"owner": "x", "beat": 1, "host": "elsewhere", "pid": 1, "process": "boot ns 1 1"}
    store.write_json(LEASE, foreign)
    started = time.monotonic()
    with Lease(store, stale_seconds=0.3) as lease:
        assert time.monotonic() - started >= 0.3
        lease.check()


@pytest.mark.parametrize("contenders", [4])
def test_of_many_at_once_one_wins(tmp_path: Path, contenders: int) -> None:
    assert race(Store(str(tmp_path)), contenders) == 1


def test_of_many_at_once_one_wins_on_s3(s3_bucket: Bucket) -> None:
    assert race(Store(f"{s3_bucket.uri}/out"), 4) == 1
    assert not s3_bucket.keys("out/")


def test_of_many_at_once_one_wins_on_azure_and_google(container: Container) -> None:
    assert race(Store(f"{container.uri}/out"), 4) == 1
    assert not container.keys()


def test_a_heartbeat_outlives_a_store_that_denies_for_a_while(
    cloud: Cloud,
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        proxy_before(cloud, monkeypatch) as proxy,
        Lease(Store(f"{container.uri}/out"), renew_seconds=0.1) as lease,
    ):
        proxy.faults = Faults(access_denied=1.0, pattern=".")
        wait_until(lambda: "cannot renew the lease" in caplog.text, "a beat that failed")
        proxy.faults = Faults()
        beat = json.loads(container.get(f"out/{LEASE}"))["beat"]
        wait_until(lambda: json.loads(container.get(f"out/{LEASE}"))["beat"] > beat, "a beat")
        lease.check()


def race(store: Store, contenders: int) -> int:
    """How many of the contenders got the lease."""
    start, finish = threading.Barrier(contenders), threading.Barrier(contenders)
    won = []

    def contend() -> None:
        lease = Lease(store, renew_seconds=0.1, stale_seconds=5)
        start.wait()
        try:
            with lease:
                won.append(lease.owner)
                finish.wait()
        except RunError:
            finish.wait()

    threads = [threading.Thread(target=contend) for _ in range(contenders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(won)


@pytest.mark.parametrize("torn", [b"", b'{"owner": "x", "be'])
def test_a_lease_that_a_power_failure_left_torn_is_none(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / LEASE).write_bytes(torn)
    with Lease(Store(str(tmp_path)), stale_seconds=1000) as lease:
        lease.check()


def test_storage_that_is_gone_at_the_end_hides_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(store: Store, kind: type, name: str) -> None:
        raise OSError("no route to host")

    def work() -> None:
        with Lease(Store(str(tmp_path))):
            monkeypatch.setattr(Store, "read_record", gone)
            raise RunError("the run stopped")

    with pytest.raises(RunError, match="the run stopped"):
        work()
    assert "no route to host" in caplog.text
