"""What a run is trusted with stands nowhere afterwards: not below OUT, in no log, not in Ray's
session directory, with and without ``--debug``, started here and submitted."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.commands import REPOSITORY, command
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.processes.ray_cluster import RayCluster
from tests.support.servers.web_server import Answer, Web, serve

pytestmark = pytest.mark.ray

SENTINEL = "-".join(("5en", "tine1"))
"""In every secret below, followed by where it stood; not in this file, which Ray copies."""
QUIET_AND_DEBUG = pytest.mark.parametrize(
    "flags",
    [pytest.param((), marks=pytest.mark.slow), ("--debug",)],  # which says the more of the two
    ids=["quiet", "debug"],
)


@pytest.fixture
def web(tmp_path: Path, checkpoint: Path) -> Iterator[Web]:
    """A model and an image that are read with secrets in their URLs."""
    (image,) = write_images(tmp_path / "web", 1)
    with serve() as server:
        signed = f"/a.jpg?X-Amz-Signature={SENTINEL}-query"
        server.answers = {signed: [Answer(body=image.read_bytes())]}
        for file in checkpoint.iterdir():
            server.answers[f"/model/{file.name}"] = [Answer(body=file.read_bytes())]
        yield server


@pytest.fixture
def config(tmp_path: Path, web: Web) -> Path:
    """A nightly run whose URLs hold secrets, of images that can be read and some that cannot."""
    listed = [
        web.url(f"/a.jpg?X-Amz-Signature={SENTINEL}-query"),
        web.url(f"/gone.jpg?sig={SENTINEL}-query"),
        f"http://127.0.0.1:9/a.jpg?token={SENTINEL}-query",
        f"http://user:{SENTINEL}-userinfo@127.0.0.1:{web.port}/b.jpg",
        f"s3://AKIA:{SENTINEL}-userinfo@bucket/a.jpg",
        f"ftp://user:{SENTINEL}-userinfo@host/a.jpg",
        f"nonsense://user:{SENTINEL}-userinfo@host/a?key={SENTINEL}-query",
    ]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    model = web.url("/model").replace("http://", f"http://user:{SENTINEL}-model@")
    values = {
        "inputs": {"uris": [str(tmp_path / "list.txt")], "allow_private_urls": True},
        "model": {"source": model},
        "output": {"uri": str(tmp_path / "out"), "top_k": 3},
        "policy": {"max_failure_rate": 1.0},
    }
    path = tmp_path / "nightly.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Secrets in the environment, in a profile, and in fsspec's configuration."""
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = AKIA\naws_secret_access_key = {SENTINEL}-profile\n"
    )
    (tmp_path / "fsspec").mkdir()
    fsspec = {"ftp": {"host": "h", "password": f"{SENTINEL}-fsspec"}}
    (tmp_path / "fsspec" / "conf.json").write_text(json.dumps(fsspec))
    return os.environ | {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_SESSION_TOKEN": f"{SENTINEL}-environment",
        "AZURE_STORAGE_KEY": f"{SENTINEL}-environment",
        "AZURE_STORAGE_CONNECTION_STRING": f"AccountKey={SENTINEL}-environment",
        "GOOGLE_API_KEY": f"{SENTINEL}-environment",
        "HF_TOKEN": f"{SENTINEL}-environment",
        "FSSPEC_S3_SECRET": f"{SENTINEL}-environment",
        "FSSPEC_CONFIG_DIR": str(tmp_path / "fsspec"),
        "HTTPS_PROXY": f"http://user:{SENTINEL}-environment@127.0.0.1:9",
    }


@dataclass(frozen=True)
class Leak:
    where: str
    what: str


def leaks(*roots: Path) -> list[Leak]:
    """The files that hold a secret, with its surroundings."""
    found = []
    for path in (path for root in roots for path in root.rglob("*")):
        if path.is_file() and SENTINEL.encode() in (data := path.read_bytes()):
            at = data.index(SENTINEL.encode())
            found.append(Leak(str(path), repr(data[max(0, at - 200) : at + 50])))
    return found


def expect_rows(tmp_path: Path) -> None:
    rows = published_rows(tmp_path / "out")
    assert len(rows) == 7
    assert [Path(str(row["uri"])).name for row in rows if row["status"] == "ok"] == ["a.jpg"]
    assert SENTINEL not in repr(rows)


@pytest.fixture
def short() -> Iterator[Path]:
    """Unix sockets have to find a place below it."""
    place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


@QUIET_AND_DEBUG
def test_a_run_here(
    tmp_path: Path, config: Path, env: dict[str, str], short: Path, flags: tuple[str, ...]
) -> None:
    done = subprocess.run(
        command("nightly", config, *flags),
        cwd=REPOSITORY,
        env=env | {"RAY_TMPDIR": str(short)},
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SENTINEL not in done.stdout + done.stderr
    expect_rows(tmp_path)
    assert list(short.rglob("raylet.out")), "Ray's session lies elsewhere"
    assert leaks(tmp_path / "out", short) == []


@pytest.mark.slow
@QUIET_AND_DEBUG
def test_a_submitted_job(
    tmp_path: Path, config: Path, env: dict[str, str], flags: tuple[str, ...]
) -> None:
    with RayCluster(num_cpus=2, takes_jobs=True, env=env) as cluster:
        entrypoint = ("python", "-m", "jobs.nightly", str(config), *flags)
        job = cluster.submit(*entrypoint, working_dir=REPOSITORY)
        assert job.driver_exit_code == 0, job.output
        assert SENTINEL not in job.output
        expect_rows(tmp_path)
        assert leaks(tmp_path / "out", cluster.directory) == []


@QUIET_AND_DEBUG
def test_messages_about_urls(tmp_path: Path, env: dict[str, str], flags: tuple[str, ...]) -> None:
    """Of a model, an INPUT and an output that cannot be used."""
    (tmp_path / "a.jpg").write_bytes(b"")
    secret = f"https://user:{SENTINEL}-userinfo@127.0.0.1:9/x?sig={SENTINEL}-query"
    password = f"s3://AKIA:{SENTINEL}/x@bucket/x"
    good = {"input": str(tmp_path / "a.jpg"), "--output": str(tmp_path / "out"), "--model": "."}
    for place, value in (
        ("--model", secret), ("--model", password), ("input", secret), ("input", password),
        ("--output", secret), ("--output", password),
    ):  # fmt: skip
        words = good | {place: value}
        arguments = [words.pop("input"), *(word for pair in words.items() for word in pair), *flags]
        done = subprocess.run(
            command("classify", *arguments),
            cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=480, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert SENTINEL not in done.stdout + done.stderr, (place, value)
