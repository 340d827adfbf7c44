"""The actor on a real GPU: CUDA graphs, compiled or not, against transformers on the CPU."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contract.schema import SHADOW, SOURCE
from pipeline.model.bundle import ShadowBundle
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.devices import Gpu
from pipeline.stages.infer.nvjpeg import why_not
from pipeline.stages.infer.settings import InferSettings
from pipeline.stages.watching.progress import Reporter
from tests.support.inputs.decoding import decoded
from tests.support.inputs.images import encode, noise, photograph
from tests.support.models.checkpoints import write_checkpoint
from tests.support.models.inference import PIXELS, batch, prepare, reference, tensor
from tests.support.models.oracle import Oracle, difference

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.usefixtures("without_ray"),
]


def actor(folder: Path, model: dict[str, Any] | None = None, **settings: Any) -> Predictor:
    loaded = prepare(folder, **(model or {}))
    hardware = {"gpus": 1.0, "calls": 2, "batch_size": 4} | settings
    return Predictor(loaded.pack(), InferSettings.of(loaded, **hardware))


@dataclass(frozen=True)
class Listener(Reporter):
    """Keeps what would be said."""

    said: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        self.said.append(message)


def test_a_second_network_on_the_same_card(checkpoint: tuple[Oracle, Path], tmp_path: Path) -> None:
    """Says what it says alone, and the first one what it says without it."""
    ours, theirs = prepare(checkpoint[1]), prepare(write_checkpoint(tmp_path, seed=1))
    settings = InferSettings.of(ours, gpus=1.0, calls=2, batch_size=4)
    shadow = ShadowBundle(theirs.pack(), "softmax", "k")
    table = Predictor(ours.pack(), settings, shadow)(batch(list(PIXELS)))
    alone = [actor(folder)(batch(list(PIXELS))) for folder in (checkpoint[1], tmp_path)]
    assert table["label"].to_pylist() == alone[0]["label"].to_pylist()
    told = [one["label"] for one in table[SHADOW.name].to_pylist()]
    assert told == alone[1]["label"].to_pylist()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("pooling", ["cls_norm", "cls", "mean"])
def test_float32_gives_the_numbers_of_the_reference(
    checkpoint: tuple[Oracle, Path], pooling: str, compiled: bool
) -> None:
    """Six images are a whole batch and a part of one."""
    model, folder = checkpoint
    options = {"pooling": pooling, "scores": "logits"}
    table = actor(folder, options, compile=compiled)(batch(list(PIXELS)))
    expected = reference(model, PIXELS)
    assert difference(tensor(table["embedding"]), expected[pooling]) < 1e-4
    assert difference(tensor(table["score"]), expected["logits"].max(dim=1).values) < 1e-4


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16", "float16"])
def test_less_precision_points_the_same_way(checkpoint: tuple[Oracle, Path], dtype: str) -> None:
    model, folder = checkpoint
    table = actor(folder, {"dtype": dtype})(batch(list(PIXELS)))
    expected = reference(model, PIXELS)["cls_norm"]
    cosine = torch.nn.functional.cosine_similarity(tensor(table["embedding"]), expected)
    assert cosine.min() > 0.999


def test_two_threads_give_what_one_gives(checkpoint: tuple[Oracle, Path]) -> None:
    one = actor(checkpoint[1])
    batches = [batch(list(np.roll(PIXELS, n, axis=0))[: 1 + n % 6]) for n in range(48)]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(one, batches))
    assert together == [one(each) for each in batches]


def test_the_batch_size_is_found(checkpoint: tuple[Oracle, Path]) -> None:
    one = actor(checkpoint[1], batch_size=64, find_batch_size=True)
    assert isinstance(one.device, Gpu)
    assert one.device.lanes.batch_size in (32, 64)
    assert len(one(batch(list(PIXELS)))) == len(PIXELS)


def test_memory_that_others_hold_halves_the_batch(checkpoint: tuple[Oracle, Path]) -> None:
    listener = Listener()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + 2**26  # earlier tests' networks are still there
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        one = actor(checkpoint[1], batch_size=4096, reporter=listener)
        assert isinstance(one.device, Gpu)
        assert one.device.lanes.batch_size < 4096
        assert listener.said
        assert len(one(batch(list(PIXELS)))) == len(PIXELS)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.skipif(WHY_NOT is not None, reason=f"no card decodes JPEG files: {WHY_NOT}")
def test_files_decoded_on_the_card_give_the_rows_of_the_cpu(
    checkpoint: tuple[Oracle, Path], tmp_path: Path
) -> None:
    """Photographs and others in one batch; what a card's decoder makes of colours is not exact."""
    files = {
        "a.jpg": photograph(640, 480),
        "b.png": encode(noise(), "PNG"),
        "c.jpg": photograph(300, 400, turn=6),
        "d.jpg": b"<html>404</html>",
        "e.jpg": photograph(480, 480, progressive=True),
    }
    one = actor(checkpoint[1], {"decode": "gpu"})
    found, expected = (one(*decoded(tmp_path, files, mode)) for mode in ("gpu", "fast"))
    assert found["status"].to_pylist() == ["ok", "ok", "ok", "failed", "ok"]
    assert found.select(SOURCE.names).equals(expected.select(SOURCE.names))
    ours, theirs = (tensor(table["embedding"].drop_null()) for table in (found, expected))
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.99
