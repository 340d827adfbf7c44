"""The benchmarks end to end, small: their figures must be there, and their books right."""

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.bench.__main__ import main
from jobs.bench.campaigns import growth
from jobs.bench.campaigns.nights import make_up, night
from jobs.bench.campaigns.start import watch
from jobs.bench.contest import rounds as contest
from jobs.bench.contest.peers.entry import Device, Entry
from jobs.bench.measure.fresh_process import Measured
from jobs.bench.measure.processes import Memory, Sampler, family
from jobs.bench.synthetic.images import HEIGHT, WIDTH, write_images
from jobs.bench.synthetic.models import write_model
from pipeline.contract.errors import RunError
from pipeline.storage.store import Store
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import Bucket

IMAGES = 20
REQUESTS_OF_A_NIGHT = 25
"""As docs/measurements.md has them."""
CHILD = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"
PARENT = """
import pathlib, subprocess, sys
subprocess.run([sys.executable, "child.py"], check=True)
pathlib.Path("row").touch()
subprocess.run([sys.executable, "child.py"], check=True)
"""
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("photographs")
    write_images(directory, IMAGES, size=(80, 60))
    return directory


def run_bench(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
    return main()


@pytest.mark.parametrize("dimensions", [0, 8])
def test_close(dimensions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its books balance, or the run would not close."""
    found = tmp_path / "found.json"
    arguments = ("close", "--rows", "2000", "--dimensions", str(dimensions), "--json", found)
    assert run_bench(monkeypatch, *arguments) == 0
    values = json.loads(found.read_text())
    assert (values["rows"], values["files"], values["in_tasks"]) == (2000, 1, False)
    assert values["driver_cpu_us_per_row"] >= values["tasks_cpu_us_per_row"] > 0
    assert values["task_peak_mib"] > 0


def test_publish(s3_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are there each time, or it would say so."""
    found = tmp_path / "found.json"
    small = ("--files", "3", "--mib", "1", "--rounds", "1", "--json", found)
    assert run_bench(monkeypatch, "publish", f"{s3_bucket.uri}/out", *small) == 0
    values = json.loads(found.read_text())
    assert values["ratio"] > 0
    assert len(s3_bucket.keys("out/data/")) == 6
    assert run_bench(monkeypatch, "publish", f"{s3_bucket.uri}/out", *small) == 2, "not empty"
    assert run_bench(monkeypatch, "publish", tmp_path / "local", *small) == 2, "not on S3"


def test_nights(s3_bucket: Bucket, fault_proxy: FaultProxy) -> None:
    """However many there were, a night in which nothing is new asks S3 as often."""
    store = Store(f"{s3_bucket.uri}/out")
    make_up(store, runs=3, rows=2)
    asked = []
    for _ in range(3):
        before = len(fault_proxy.requests)
        assert night(store, runs=3, rows=2).cpu_seconds > 0
        asked.append(len(fault_proxy.requests) - before)
    assert asked[0] > asked[1] == asked[2] <= REQUESTS_OF_A_NIGHT


def test_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tmp_path / "found.json"
    few = ("--batch-size", "4", "--steps", "1", "--rounds", "1")
    arguments = ("training", "--preset", "small", *few)
    assert run_bench(monkeypatch, *arguments, "--json", found) == 0
    values = json.loads(found.read_text())
    assert min(values["ours"], values["theirs"]) > 0
    assert values["ratio"] == pytest.approx(values["ours"] / values["theirs"])


@pytest.mark.ray
def test_stages_and_the_whole(
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("jobs.bench.ceilings.end_to_end.DECODE_IMAGES", 40)
    monkeypatch.setattr("jobs.bench.ceilings.end_to_end.MODEL_BATCHES", 2)
    found = tmp_path / "found.json"
    options = ("--preset", "small", "--images", "15", "--batch-size", "4", "--block-size", "8")
    assert run_bench(monkeypatch, photographs, *options, "--json", found) == 0
    values: dict[str, Any] = json.loads(found.read_text())
    assert values["end_to_end"]["counts"] == {"listed": 15, "ok": 15, "failed": 0, "skipped": 0}
    for name, stage in values["stages"].items():
        assert stage["images"] >= 15, name
        assert stage["images"] % 15 == 0, name
        assert sum(stage["nodes"].values()) == stage["images"]
        assert stage["images_per_second"] > 0
    ceilings = values["ceilings"]
    rates = [values["stages"][name]["images_per_second"] for name in ("decode", "model")]
    assert math.isclose(
        ceilings["expected_images_per_second"], 1 / (1 / rates[0] + 1 / rates[1]), rel_tol=1e-9
    )
    assert values["versions"]["torch"]
    assert values["hardware"]["cores"] >= 1
    printed = capsys.readouterr().out
    assert ceilings["bottleneck"] in printed
    assert "end to end reaches" in printed


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_CUDA])]
)
@pytest.mark.parametrize("name", contest.GPU_PEERS)
def test_a_peer_gives_the_labels_of_transformers(
    name: str, device: Device, photographs: Path, tmp_path: Path
) -> None:
    """Our own preprocessing and network stand in for transformers, to which they are equal."""
    if name == "Daft" and find_spec("daft") is None:
        pytest.skip("daft is not installed")
    model = write_model(tmp_path / "model", "small")
    entry = Entry(str(photographs), str(model), "", "float32", 2, 8, device)
    work = tmp_path / "work"
    work.mkdir()
    lap = contest.run_peer(name, contest.GPU_PEERS[name], entry, work)
    assert lap.images == IMAGES
    assert 0 < lap.processing_seconds < lap.wall_seconds
    assert lap.cpu_seconds > 0
    # Daft decodes with a library of its own, whose pixels differ a little.
    assert contest.agreement(lap.labels, _our_labels(photographs, model)) >= 0.9


def _our_labels(images: Path, model: Path) -> contest.Labels:
    from cvt import CvtForImageClassification, CvtImageProcessor

    network = CvtForImageClassification.from_pretrained(str(model))
    processor = CvtImageProcessor.from_pretrained(str(model))
    paths = sorted(images.iterdir())
    best = network(processor([path.read_bytes() for path in paths])).logits.argmax(dim=1)
    names = [network.config.labels[index] for index in best.tolist()]
    assert len(set(names)) > 1, "equal labels would prove nothing"
    return dict(zip([path.name for path in paths], names, strict=True))


def lap(name: str, dtype: str, seconds: float, *, ours: bool = False, **labels: str) -> contest.Lap:
    return contest.Lap(
        name=name,
        dtype=dtype,  # type: ignore[arg-type]
        is_ours=ours,
        images=100,
        processing_seconds=seconds,
        wall_seconds=seconds + 5,
        cpu_seconds=2 * seconds,
        labels=labels,
    )


def test_standings_are_medians_and_labels_shares() -> None:
    laps = [
        lap("ours", "float32", 4, ours=True, a="cat", b="dog"),
        lap("Daft", "float32", 8, a="cat", b="cow"),
        lap("ours", "float32", 5, ours=True, a="cat", b="dog"),
        lap("ours", "float32", 50, ours=True, a="cat", b="dog"),
    ]
    ours, daft = contest.standings(laps)
    assert (ours.images_per_second, ours.agreement) == (20, 1)
    assert (daft.images_per_second, daft.agreement) == (12.5, 0.5)
    assert daft.images_per_second_with_start == pytest.approx(100 / 13)


def test_goals_compare_with_the_best_peer_of_the_dtype() -> None:
    laps = [
        lap("ours", "float32", 10, ours=True),
        lap(contest.RAY_EXAMPLE, "float32", 30),
        lap("Daft", "float32", 13),
        lap("Daft", "bfloat16", 1),
    ]
    best, example = contest.goals(contest.standings(laps))
    assert (best["against"], best["reached"]) == ("the best peer (Daft)", False)
    assert best["ratio"] == pytest.approx(1.3)
    assert (example["ratio"], example["reached"]) == (pytest.approx(3.0), True)


def test_points_of_a_run_carry_its_memory() -> None:
    mib = 2**20
    measured = Measured(
        started=0,
        connected=1,
        ready=10,
        ended=31,
        counts={"ok": 200, "failed": 0},
        timings={},
        versions={},
        cluster={},
        by_node={},
        curve=[(10.0 + second, 10.0 * second) for second in range(21)],
        memory=[Memory(10.0 + second, second * mib, 2 * mib) for second in range(21)],
    )
    first, second = growth.points(measured, 2)
    assert (first.images, first.images_per_second, first.driver_mib) == (100, 10, 10)
    assert (second.images, second.driver_mib, second.workers_mib) == (200, 20, 2)


def test_photographs_are_the_same_everywhere(tmp_path: Path) -> None:
    once, again = (write_images(tmp_path / name, 3) for name in ("a", "b"))
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]
    assert len({p.read_bytes() for p in once}) == 3
    assert 90_000 < sum(p.stat().st_size for p in once) / 3 < 130_000
    assert (WIDTH, HEIGHT) == (500, 375)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_is_seen_with_what_it_used(tmp_path: Path) -> None:
    import os
    import subprocess

    code = "import time; x = bytearray(50_000_000)\nwhile time.process_time() < 0.6: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as child, Sampler(child.pid, 0.1) as seen:
        assert child.pid in {process.pid for process in family(os.getpid())}
        child.wait()
    assert 0.3 < seen.cpu_seconds < 1
    assert max(m.driver for m in seen.memory) > 50_000_000


@pytest.mark.ray
def test_wrong_inputs_end_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_bench(monkeypatch, tmp_path / "nothing", "--preset", "small") == 2
    assert "nothing" in capsys.readouterr().err


def test_the_processes_of_a_start_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "child.py").write_text(CHILD.format(seconds=0.5))
    (tmp_path / "parent.py").write_text(PARENT)
    start = watch([sys.executable, "parent.py"], (tmp_path / "row").exists, tmp_path / "log")
    assert start.first_row > 0
    children = [name for name in start.whole if name.startswith("child.py (")]
    assert len(children) == 2
    assert sum(name.startswith("parent.py (") for name in start.whole) == 1, start
    [first] = [name for name in start.before if start.before[name] > 0.3]
    assert first in children
    assert "first row after " in str(start)


def test_a_start_that_fails_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('error: no such model')"]
    with pytest.raises(RunError, match="exit code 1: error: no such model"):
        watch(command, lambda: False, tmp_path / "log")
