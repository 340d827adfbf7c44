"""The comparison of ways to run a model, on one that takes milliseconds."""

import json
from pathlib import Path

import pytest
import torch

from jobs.bench.__main__ import build_parser
from jobs.bench.components.network import bench_network

EAGER = ["transformers, float32", "transformers, bfloat16"]
GRAPH = ["transformers, onnxruntime, float32"]
OURS = [
    "model.py, float32",
    "BatchNorm folded, float32",
    "InferenceCvt, float32",
    "optimized, float32",
    "optimized, bfloat16",
]
CHOSEN = (
    f"^({'|'.join([*EAGER, *GRAPH, *OURS])})$"  # OpenVINO takes seconds, and is tested elsewhere
)


def run(model: Path, *options: str) -> None:
    threads = torch.get_num_threads()  # what it sets would outlive it
    words = ["network", "--model", str(model), "--threads", str(threads), *options]
    bench_network(build_parser().parse_args(words))


def test_the_chosen_ways_are_timed_and_compared(
    small_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    size = ["--size", "64", "--batch", "2", "--rounds", "3"]
    run(small_dir, *size, "--json", str(report), "--only", CHOSEN)
    content = json.loads(report.read_text())
    ways = {way.pop("name"): way for way in content["ways"]}
    assert list(ways) == [*EAGER, *GRAPH, *OURS]
    assert (ways[EAGER[0]]["ratio"], ways[EAGER[0]]["logit_drift"]) == (1.0, 0.0)
    for name, way in ways.items():
        assert way["images_per_cpu_second"] > 0
        assert way["embedding_cosine"] > 0.999
        assert way["logit_drift"] < (0.1 if "bfloat16" in name else 1e-4)
    *table, bounds = capsys.readouterr().out.splitlines()
    assert list(content["ceilings"]) == ["float32", "bfloat16"]
    assert bounds.startswith("matrix products alone: ")
    assert len(table) == 2 + len(ways)
    assert len({len(line) for line in table}) == 1
    assert f"| {OURS[-1]} " in table[-1]


def test_the_first_way_is_always_there(small_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(small_dir, "--size", "32", "--batch", "1", "--rounds", "1", "--only", "model.py")
    names = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:-1]]
    assert names == [EAGER[0], OURS[0]]
