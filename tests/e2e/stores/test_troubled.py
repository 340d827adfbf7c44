"""Outputs on S3 that are full for a while, or whose listings lag behind: every row stands once."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import CallJob
from tests.support.inputs.images import write_images
from tests.support.outputs.found import BucketOutput, check_closed
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket

pytestmark = pytest.mark.ray
IMAGES = 40
LAST_WORDS = "start the same command again"

Classify = Callable[[], tuple[int, str]]


@pytest.fixture
def classify(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    ray_local: None,
    call_job: CallJob,
) -> Classify:
    """The command from the disk into the bucket: its exit code, and the last line it printed."""
    write_images(tmp_path / "in", IMAGES)

    def call() -> tuple[int, str]:
        output = f"{s3_bucket.uri}/out"
        done = call_job("embed", tmp_path / "in", "--output", output, "--model", checkpoint)
        assert "Traceback" not in done.stderr
        return done.returncode, (done.stderr or done.stdout).splitlines()[-1]

    return call


def full(pattern: str) -> Faults:
    """No room for the objects that the pattern finds."""
    return Faults(
        denied_pattern=pattern,
        denied_code="InsufficientStorage",
        denied_status=507,
        methods=("PUT",),
        pattern=".",
    )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "at", ["/parts/", *(pytest.param(at, marks=SLOW) for at in ("/publish/", "/data/run="))]
)
def test_a_store_that_is_full_for_a_while(
    classify: Classify, s3_bucket: Bucket, fault_proxy: FaultProxy, at: str
) -> None:
    fault_proxy.faults = full(at)
    code, line = classify()
    assert code == 1
    assert re.search(rf"error: the run stopped: .*{s3_bucket.uri}/out is full, make room", line)
    assert line.count(LAST_WORDS) == 1
    fault_proxy.faults = full("_lease")
    code, line = classify()
    assert code == 1
    assert f"cannot use --output {s3_bucket.uri}/out: " in line
    assert "is full, make room" in line
    fault_proxy.faults = Faults()
    assert classify()[0] == 0
    check_closed(BucketOutput(s3_bucket), IMAGES)


def test_listings_that_lag_behind(
    classify: Classify, s3_bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    """They show nothing of an output, but for a part that never was."""
    fault_proxy.faults = Faults(
        unlisted=r"^out/", ghosts=("out/_open/1/parts/0-000-000000.parquet",)
    )
    for _ in range(2):
        assert classify()[0] == 0
    fault_proxy.faults = Faults()
    assert classify()[0] == 0  # and cleans up what no listing showed
    assert check_closed(BucketOutput(s3_bucket), IMAGES)["attempts"] == 1
