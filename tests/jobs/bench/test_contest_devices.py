"""The contest on a card: who is told what, and what happens where there is none."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from jobs.bench.contest import rounds
from jobs.bench.contest.peers.entry import Device, Entry
from jobs.bench.contest.report import peers_table
from jobs.bench.synthetic.images import write_images
from pipeline.contract.errors import RunError
from pipeline.contract.spec import ComputeSpec, InputSpec, ModelSpec, OutputSpec, RunSpec

SPEC = RunSpec(
    inputs=InputSpec(uris=("in",)),
    model=ModelSpec(source="m"),
    output=OutputSpec(uri="out", top_k=1),
)
NO_CUDA = "--device cuda, but torch finds no CUDA device"


class Told:
    """Keeps what contestants are told, and lets none of them run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[Sequence[str]] = []
        self.specs: list[RunSpec] = []
        monkeypatch.setattr(rounds, "call", self._call)
        monkeypatch.setattr(rounds, "measure_apart", self._measure)

    def _call(self, command: Sequence[str], log: Path) -> NoReturn:
        self.commands.append(command)
        raise RunError("not today")

    def _measure(self, spec: RunSpec) -> NoReturn:
        self.specs.append(spec)
        raise RunError("not today")


@pytest.mark.parametrize(("device", "batch", "gpus"), [("cpu", "8", 0), ("cuda", "128", 1)])
def test_everybody_is_told_the_device(
    device: Device, batch: str, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(monkeypatch)
    (tmp_path / "images").mkdir()
    found = rounds.contest(
        {"ours": SPEC}, tmp_path / "images", tmp_path, ("bfloat16",), 2, device
    )  # fmt: skip
    assert [spec.compute.num_gpus for spec in told.specs] == [gpus]
    peers = rounds.GPU_PEERS if device == "cuda" else rounds.PEERS
    assert [command[0].rpartition(".")[2] for command in told.commands] == list(peers.values())
    for command in told.commands:
        options = dict(zip(command[4::2], command[5::2], strict=True))
        assert options["--device"] == device
        assert options["--batch-size"] == batch
        assert options["--dtype"] == "bfloat16"
    assert found.failed == {f"{name}, bfloat16": "not today" for name in ("ours", *peers)}
    assert found.device == device


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_the_contestant_fails_and_not_the_contest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "GPU_PEERS", {"torch DataLoader": "dataloader"})
    images = write_images(tmp_path / "images", 1, size=(8, 8))
    found = rounds.contest({}, images[0].parent, tmp_path, ("bfloat16",), 1, "cuda")
    assert found.failed.keys() == {"torch DataLoader, bfloat16"}
    reason = found.failed["torch DataLoader, bfloat16"]
    assert reason.endswith(f"exit code 1: {NO_CUDA}")
    assert f"did not run: torch DataLoader, bfloat16: {reason}" in peers_table(found)


def test_an_entry_knows_whether_its_device_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["peer", "images", "model", "work"])
    assert not Entry.from_command_line().on_gpu
    monkeypatch.setattr(sys, "argv", ["peer", "images", "model", "work", "--device", "cuda"])
    with pytest.raises(SystemExit, match=NO_CUDA):
        Entry.from_command_line()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Entry.from_command_line().on_gpu


def test_a_compiled_model_sees_batches_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.bench.contest.peers.dataloader import compiled

    seen: list[int] = []

    def model(pixels: Tensor) -> SimpleNamespace:
        seen.append(len(pixels))
        return SimpleNamespace(logits=pixels.sum(dim=(1, 2, 3)))

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    logits = compiled(model, torch.ones(3, 2, 2), 4)
    pixels = torch.arange(36.0).reshape(3, 3, 2, 2)
    assert torch.equal(logits(pixels), pixels.sum(dim=(1, 2, 3)))
    assert torch.equal(logits(torch.ones(4, 3, 2, 2)), torch.full((4,), 12.0))
    assert seen == [4, 4, 4]


def test_on_a_card_ours_has_to_be_ahead_of_every_peer() -> None:
    def standing(name: str, speed: float) -> rounds.Standing:
        return rounds.Standing(
            name=name, dtype="bfloat16", is_ours=name == "ours", images_per_second=speed,
            images_per_second_with_start=speed, cpu_seconds_per_image=0, agreement=1,
        )  # fmt: skip

    table = [standing("ours", 100), standing(rounds.RAY_EXAMPLE, 90), standing("Daft", 101)]
    best, example = rounds.goals(table, "cuda")
    assert (best["goal"], best["reached"]) == (1, False)
    assert (example["goal"], example["reached"]) == (1, True)
    assert not any(goal["reached"] for goal in rounds.goals(table))


@pytest.mark.parametrize(
    ("gpus", "there", "device"),
    [(None, True, "cuda"), (None, False, "cpu"), (0, True, "cpu"), (1, True, "cuda")],
)
def test_peers_compute_where_our_run_would(
    gpus: float | None, there: bool, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    spec = replace(SPEC, compute=ComputeSpec(num_gpus=gpus))
    assert rounds.contest_device(spec) == device


def test_openvino_does_not_compete_on_a_card() -> None:
    assert list(rounds.our_contestants(SPEC, "cuda")) == ["ours, torch"]
