"""The speed of a training step, against transformers' Trainer on the same network, in turns.

Both learn from the same random images, already decoded, in float32 on the CPU: forward, backward,
clipping, AdamW and schedule. Time is the process's CPU time, from the first step on: what either
does before that, which for the Trainer is a quarter of a second, counts for neither.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ModelSpec
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.recipes import Recipe


@dataclass(frozen=True)
class Speeds:
    """Images per CPU second, medians of the rounds."""

    ours: float
    theirs: float
    ratio: float
    """Median of the rounds' ratios."""


def compare(source: str, batch: int, count: int, rounds: int) -> Speeds:
    """Train both in turns.

    Args:
        batch: images of a step.
        count: steps of a round; each starts with one more, which is not counted.

    Raises:
        UsageError: the model cannot be trained.
    """
    checkpoint = load_checkpoint(ModelSpec(source=source))
    if not isinstance(checkpoint, TrainableCheckpoint) or not checkpoint.classes:
        raise UsageError(f"{source} cannot be trained; name one with a classifier")
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint.save(Path(scratch))
        for _ in range(rounds):
            theirs.append(_measured(_their_steps(scratch, checkpoint, batch), batch, count))
            ours.append(_measured(_our_steps(checkpoint, batch, count), batch, count))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Speeds(statistics.median(ours), statistics.median(theirs), statistics.median(ratios))


def _measured(steps: Callable[[int], float], batch: int, count: int) -> float:
    """Images per CPU second, after a step that is not counted."""
    steps(1)
    return count * batch / steps(count)


def _data(checkpoint: TrainableCheckpoint, batch: int) -> tuple[Any, Any]:
    rng, size = np.random.default_rng(0), checkpoint.preprocessing.size
    pixels = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    return pixels, np.arange(batch) % len(checkpoint.classes)


def _our_steps(checkpoint: TrainableCheckpoint, batch: int, count: int) -> Callable[[int], float]:
    """What takes so many steps, and returns their seconds."""
    recipe = Recipe(frozen_statistics=False, smoothing=0.0, batch_size=batch)
    cpu = torch.device("cpu")
    learner = checkpoint.learner(recipe, 1 + count, cpu, last_stage=False)
    pixels, targets = _data(checkpoint, batch)

    def steps(count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            learner.step(pixels, targets)
        return time.process_time() - started

    return steps


def _their_steps(
    folder: str, checkpoint: TrainableCheckpoint, batch: int
) -> Callable[[int], float]:
    """As ``_our_steps``."""
    import transformers

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]  # has no types
        """Starts with the first step."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                self.started = time.process_time()

    pixels, targets = _data(checkpoint, batch)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    rows = [
        {"pixel_values": image, "labels": int(target)}
        for image, target in zip(values, targets, strict=True)
    ]
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)

    def steps(count: int) -> float:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=count,
            per_device_train_batch_size=batch,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        clock = Clock()
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[clock])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return time.process_time() - clock.started

    return steps
