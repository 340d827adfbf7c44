"""Where checkpoints come from, and what is said when one cannot be had."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import torch

from cvt import CheckpointError, CvtForImageClassification
from cvt.interface import sources
from tests.support.models.oracle import Oracle, difference, images
from tests.support.processes import process
from tests.support.servers.seaweedfs import Bucket

X = images(1, 48, 48)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(X).logits
    return result


def test_a_directory_in_a_bucket(small: Oracle, small_dir: Path, s3_bucket: Bucket) -> None:
    s3_bucket.put_tree(small_dir, "models/small/")
    model = CvtForImageClassification.from_pretrained(f"{s3_bucket.uri}/models/small")
    assert difference(logits(model), logits(small)) < 1e-5


def test_shards_in_a_bucket(small: Oracle, tmp_path: Path, s3_bucket: Bucket) -> None:
    small.save_pretrained(tmp_path, max_shard_size="100KB")
    s3_bucket.put_tree(tmp_path, "small/")
    model = CvtForImageClassification.from_pretrained(f"{s3_bucket.uri}/small/")
    assert difference(logits(model), logits(small)) < 1e-5


def test_a_file_in_a_bucket(small: Oracle, small_dir: Path, s3_bucket: Bucket) -> None:
    uri = s3_bucket.put("weights.safetensors", (small_dir / "model.safetensors").read_bytes())
    config = s3_bucket.put("small.json", (small_dir / "config.json").read_bytes())
    model = CvtForImageClassification.from_pretrained(uri, config=config)
    assert difference(logits(model), logits(small)) < 1e-5


@pytest.fixture
def wrong_secret(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket's uri, under credentials that its server refuses."""
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    yield s3_bucket.uri
    s3.clear_instance_cache()


def test_a_refused_login_is_not_taken_for_a_missing_object(wrong_secret: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: "):
        CvtForImageClassification.from_pretrained(f"{wrong_secret}/small")


def test_an_empty_prefix(s3_bucket: Bucket) -> None:
    with pytest.raises(CheckpointError, match="holds no weights: expected one of model"):
        CvtForImageClassification.from_pretrained(f"{s3_bucket.uri}/nothing")


def test_any_fsspec_filesystem(small: Oracle, small_dir: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(small_dir), "/zoo/small", recursive=True)
    model = CvtForImageClassification.from_pretrained("memory://zoo/small")
    assert difference(logits(model), logits(small)) < 1e-5


@pytest.fixture
def hub_cache(small: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local cache as the hub's client lays it out: owner/small at ``main``, with a .bin alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--owner--small"
    small.config.save_pretrained(repository / "snapshots" / COMMIT)
    torch.save(small.state_dict(), repository / "snapshots" / COMMIT / "pytorch_model.bin")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
@pytest.mark.usefixtures("hub_cache")
def test_a_hub_name_offline(small: Oracle, revision: str | None) -> None:
    model = CvtForImageClassification.from_pretrained("owner/small", revision=revision)
    assert difference(logits(model), logits(small)) < 1e-5


def test_the_hubs_environment_variables_are_honoured(hub_cache: Path) -> None:
    code = "from cvt import CvtModel; CvtModel.from_pretrained('owner/small')"
    environment = {**os.environ, "HF_HOME": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)


@pytest.mark.usefixtures("hub_cache")
def test_a_hub_name_that_is_not_cached_offline() -> None:
    with pytest.raises(CheckpointError, match="owner/large is not in the local cache"):
        CvtForImageClassification.from_pretrained("owner/large")
    with pytest.raises(CheckpointError, match="owner/small is not in the local cache"):
        CvtForImageClassification.from_pretrained("owner/small", revision="v2")


class TestAHubThatIsAway:
    """Its own client would try six times for half a minute, and log each of them."""

    CODE = """
import sys, time
from cvt.interface.sources import open_source
import huggingface_hub, logging
logging.basicConfig(level=logging.INFO)
start = time.monotonic()
try:
    with open_source(sys.argv[1]) as (fetch, _):
        print(fetch("config.json"))
except Exception as error:
    print(error)
print(time.monotonic() - start)
"""

    def asked(self, name: str, endpoint: str, cache: Path) -> tuple[str, float, str]:
        """What a fresh process answers, in how many seconds, and what it logs."""
        environment = {key: text for key, text in os.environ.items() if key != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
        command = [sys.executable, "-c", self.CODE, name]
        done = subprocess.run(
            command, env=environment, check=True, timeout=300, capture_output=True, text=True
        )
        answer, seconds = done.stdout.splitlines()
        return answer, float(seconds), done.stderr

    @pytest.fixture
    def silent(self) -> Iterator[str]:
        """A hub that accepts connections and says nothing."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"

    @pytest.mark.parametrize("cached", [True, False])
    def test_is_asked_once(self, cached: bool, silent: str, hub_cache: Path) -> None:
        for endpoint in (silent, f"http://127.0.0.1:{process.free_ports(1)[0]}"):
            name = "owner/small" if cached else "owner/large"
            answer, seconds, logged = self.asked(name, endpoint, hub_cache)
            if cached:
                assert answer.endswith(f"{COMMIT}/config.json")
            else:
                assert "owner/large is not in the local cache, and the hub cannot be" in answer
            assert "Retry" not in logged
            assert seconds < 20  # that is no measurement: the client alone takes longer

    def test_a_busy_hub(self) -> None:
        busy = SimpleNamespace(status_code=503)
        assert sources._trouble(lambda: busy) == "it answers 503"
        assert sources._trouble(lambda: SimpleNamespace(status_code=404)) is None


def test_no_such_path() -> None:
    with pytest.raises(CheckpointError, match="neither an existing path nor a hub name"):
        CvtForImageClassification.from_pretrained("/nowhere/at/all")


class Bomb:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch bomb-went-off",)


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"stage0.patch_embed.proj.weight": Bomb()}, "bomb.pth")
    with pytest.raises(CheckpointError, match=r"bomb\.pth holds more than tensors") as caught:
        CvtForImageClassification.from_pretrained("bomb.pth")
    assert "\n" not in str(caught.value)
    assert not Path("bomb-went-off").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "model.h5"])
@pytest.mark.parametrize("size", [0, 1000, -1000])
def test_broken_files_are_named(name: str, size: int, small: Oracle, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        small.save_pretrained(tmp_path)
    else:
        torch.save(small.state_dict(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=f"{name} is not a complete") as caught:
        CvtForImageClassification.from_pretrained(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shard", ["missing.bin", "../elsewhere.bin", "/etc/passwd"])
def test_an_index_may_only_name_its_neighbours(shard: str, small_dir: Path, tmp_path: Path) -> None:
    shutil.copy(small_dir / "config.json", tmp_path)
    torch.save({}, tmp_path.parent / "elsewhere.bin")
    index = f'{{"weight_map": {{"cvt.encoder.x": "{shard}"}}}}'
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="which is not beside it"):
        CvtForImageClassification.from_pretrained(tmp_path)


def test_a_secret_in_a_url_stays_out_of_the_message() -> None:
    with pytest.raises(CheckpointError) as caught:
        CvtForImageClassification.from_pretrained("http://127.0.0.1:1/m.bin?token=secret")
    assert "secret" not in str(caught.value)
    assert "http://127.0.0.1:1/m.bin" in str(caught.value)
