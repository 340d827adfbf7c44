"""Machines that give a run little: each finishes it, or ends it in one line."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Run = Callable[..., subprocess.CompletedProcess[str]]


def is_allowed(*words: str) -> bool:
    """Whether this user may do so."""
    if shutil.which(words[0]) is None:
        return False
    return subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory outside of /tmp, with images in it; its name is short, for Unix sockets."""
    found = Path(tempfile.mkdtemp(prefix="odd-", dir="/var/tmp"))
    write_images(found / "in", 20)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture
def run(place: Path, checkpoint: Path) -> Run:
    """``run(words, **env)``: the job, started by other words, with more of an environment."""
    model = shutil.copytree(checkpoint, place / "model")
    arguments = (place / "in", "--output", place / "out", "--model", model, "--dtype", "float32")

    def classify(words: str = "{}", **env: str) -> subprocess.CompletedProcess[str]:
        settings = os.environ | {"RAY_AUTH_TOKEN_PATH": "", "RAY_TMPDIR": str(place / "ray")} | env
        return subprocess.run(
            words.format(shlex.join(command("classify", *arguments))),
            shell=True,
            cwd=REPOSITORY,
            env={name: value for name, value in settings.items() if value},
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )

    return classify


needs_mounts = pytest.mark.skipif(
    not is_allowed("unshare", "--mount"), reason="may not mount anything"
)
MOUNTED = "unshare --mount sh -c 'mount -t tmpfs -o {options} tmpfs {place} && {{}}'"


@needs_mounts
def test_read_only_tmp(run: Run, place: Path) -> None:
    words = MOUNTED.format(options="ro,size=1m", place="/tmp")
    refused = run(words, RAY_TMPDIR="")
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: cannot start Ray on this machine: ")
    assert "Read-only file system" in refused.stderr
    assert "or in RAY_TMPDIR" in refused.stderr
    assert run(words).returncode == 0
    assert len(published_rows(place / "out")) == 20


@needs_mounts
def test_little_shared_memory(run: Run, place: Path) -> None:
    """What containers have unless they are given more; Ray then takes files."""
    done = run(MOUNTED.format(options="size=64m", place="/dev/shm"))
    assert done.returncode == 0, done.stderr
    assert len(published_rows(place / "out")) == 20


FILLED = """unshare --mount sh -c '
    mkdir {out} && mount -t tmpfs -o size=4k tmpfs {out} || exit
    for size in {sizes}; do
        mount -o remount,size=$size {out}
        {{0}}
        echo "with $size: $?" >&2
    done
    cp -r {out} {kept}'"""


@needs_mounts
def test_a_disk_that_is_full(run: Run, place: Path) -> None:
    """When the run begins, when it commits a part, and then no longer."""
    sizes = ("4k", "16k", "64m")
    kept = place / "kept"
    done = run(FILLED.format(out=place / "out", kept=kept, sizes=" ".join(sizes)))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"with (\w+): (\d)", done.stderr) == [
        *((size, "1") for size in sizes[:-1]), (sizes[-1], "0"),
    ]  # fmt: skip
    last = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(last) == len(sizes) - 1
    for line in last:
        assert f"{place}/out is full, make room there ([Errno 28] No space left" in line
        assert "start the same command again" in line
    assert "Traceback" not in done.stderr
    assert len({row["uri"] for row in published_rows(kept)}) == len(published_rows(kept)) == 20
    assert not [*kept.rglob(".*"), *kept.glob("_open/*"), *kept.glob("_lease*")]


WITHOUT_ROOT = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
READING = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")


@pytest.mark.skipif(not is_allowed(*WITHOUT_ROOT, *READING), reason="may not become somebody else")
def test_a_user_who_may_write_nowhere_else(run: Run, place: Path) -> None:
    """Reads whatever root reads, so that Python is found."""
    for path in (place, *place.rglob("*")):
        os.chown(path, 65534, 65534)
    words = shlex.join((*WITHOUT_ROOT, *READING)) + " {}"
    done = run(words, HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert len(published_rows(place / "out")) == 20


def test_a_node_without_memory(run: Run, place: Path) -> None:
    """Ray's own killer ends every worker at once."""
    ended = run(RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="100")
    assert ended.returncode == 1, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: the run stopped: ")
    assert "low on memory" in last
    assert last.endswith("; start the same command again to continue it")
    assert run().returncode == 0
    assert len(published_rows(place / "out")) == 20
