"""Train the demo's model: a small CvT on Fashion-MNIST, on a CPU.

    python -m jobs.demo.train [--data DIR] [--output jobs/demo/model] [--without CLASS ...]

Writes a checkpoint in Hugging Face layout, and training.json, which records how it was made.
"""

import argparse
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor
from cvt.training.optimizer import make_schedule
from jobs.demo.data import CLASS_NAMES, DEFAULT_ROOT, load_split, of_classes

SIZE = 28
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, in units of the full scale
COMMAND = "python -m jobs.demo.train"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything besides the data and the architecture that determines the trained weights."""

    epochs: int = 12
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, after a linear warm-up and before a cosine decay to zero."""
    warmup_share: float = 0.1
    """Share of all steps during which the rate rises."""
    weight_decay: float = 0.05
    """On weight matrices and kernels only."""
    label_smoothing: float = 0.1
    """Probability mass that the target spreads over all classes."""
    max_shift: int = 2
    """Training images move by up to this many pixels in each direction."""
    clip_norm: float = 1.0
    """Longest gradient allowed, as a 2-norm over all parameters."""
    seed: int = 0
    """For the initial weights, the order of the images and the augmentation."""


def demo_config(labels: Sequence[str] = CLASS_NAMES) -> CvtConfig:
    """A CvT of 0.6 million parameters for 28x28 pixels."""
    return CvtConfig(
        patch_sizes=(5, 3, 3),
        patch_stride=(3, 2, 2),
        patch_padding=(2, 1, 1),
        embed_dim=(32, 64, 96),
        num_heads=(1, 2, 3),
        depth=(1, 2, 4),
        initializer_range=0.1,  # 0.02 is for widths of hundreds; with it, training starts slowly
        labels=tuple(labels),
        image_size=SIZE,
    )


def demo_processor() -> CvtImageProcessor:
    """Preprocessing that leaves 28x28 images unresized."""
    return CvtImageProcessor(size=SIZE, crop_pct=1.0, image_mean=(MEAN,) * 3, image_std=(STD,) * 3)


def normalized(images: Tensor) -> Tensor:
    """Grey uint8 (B, 28, 28) -> float32 (B, 3, 28, 28), as the preprocessor does it."""
    grey = (images.float() / 255 - MEAN) / STD
    return grey[:, None].expand(-1, 3, -1, -1)


def augmented(images: Tensor, max_shift: int) -> Tensor:
    """Each image (B, 28, 28) shifted at random, with black moving in, and half of them mirrored."""
    count, pixels = len(images), torch.arange(SIZE)
    shift_y, shift_x = torch.randint(0, 2 * max_shift + 1, (2, count, 1))
    mirrored = torch.rand(count, 1) < 0.5
    rows = shift_y + pixels  # (B, 28)
    columns = shift_x + torch.where(mirrored, pixels.flip(0), pixels)
    padded = pad(images, (max_shift,) * 4)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW without weight decay on biases and norms."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )


def shuffled_batches(count: int, batch_size: int) -> Iterator[Tensor]:
    """Indices of full batches in random order; a last, partial batch is left out."""
    order = torch.randperm(count)
    return iter(torch.split(order[: count - count % batch_size], batch_size))


def train(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    recipe: Recipe,
    report: Callable[[str], None],
) -> CvtForImageClassification:
    """Train a fresh demo model; returns it in eval mode. ``report`` gets a line per epoch.

    images (N, 28, 28) uint8, labels (N,) int64, the positions of their classes.
    """
    torch.manual_seed(recipe.seed)
    model = CvtForImageClassification(demo_config(classes)).train()
    optimizer = make_optimizer(model, recipe)
    steps = recipe.epochs * (len(images) // recipe.batch_size)
    schedule = make_schedule(optimizer, steps, recipe.warmup_share)
    for epoch in range(recipe.epochs):
        losses = []
        for batch in shuffled_batches(len(images), recipe.batch_size):
            pixels = normalized(augmented(images[batch], recipe.max_shift))
            logits = model(pixels).logits
            loss = cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        report(f"epoch {epoch + 1}/{recipe.epochs}: loss {np.mean(losses):.4f}")
    return model.eval()


@torch.inference_mode()
def checkpoint_accuracy(
    directory: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int = 500
) -> float:
    """Share of images (N, 28, 28) that the stored checkpoint, run as users run it, gets right."""
    model = CvtForImageClassification.from_pretrained(directory)
    processor = CvtImageProcessor.from_pretrained(directory)
    right = 0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size, :, :, None].repeat(3, axis=3)
        predicted = model(processor(list(batch))).logits.argmax(dim=1).numpy()
        right += int((predicted == labels[start : start + batch_size]).sum())
    return right / len(images)


def run(root: Path, directory: Path, recipe: Recipe, classes: Sequence[str]) -> dict[str, Any]:
    """Train, export and test what was exported, on the images of some classes; returns the record
    for training.json."""
    images, labels = of_classes(*load_split(root, "train"), classes)
    tested = of_classes(*load_split(root, "t10k"), classes)
    started, cpu_started = time.perf_counter(), time.process_time()
    model = train(torch.from_numpy(images), torch.from_numpy(labels), classes, recipe, _report)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    model.save_pretrained(directory)
    demo_processor().save_pretrained(directory)
    lacking = [name for name in CLASS_NAMES if name not in classes]
    return {
        "command": shlex.join([*COMMAND.split(), *(f"--without={name}" for name in lacking)]),
        "data": f"Fashion-MNIST, {len(images):,} training images; tested on {len(tested[0]):,} "
        f"test images of the {len(classes)} classes",
        "test_accuracy": checkpoint_accuracy(directory, *tested),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": asdict(recipe),
        "torch": torch.__version__,
        "wall_seconds": round(wall),
        "cpu_seconds": round(cpu),
    }


def _report(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Parse the command line, train, print the test accuracy."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--data", type=Path, default=DEFAULT_ROOT, help="Fashion-MNIST's directory")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=CLASS_NAMES,
        metavar="CLASS",
        help="a class that the model is not to know, such as Shirt; may be repeated",
    )
    arguments = parser.parse_args()
    classes = [name for name in CLASS_NAMES if name not in arguments.without]
    torch.set_num_threads(1)  # so that the rounding does not depend on the machine's cores
    torch.use_deterministic_algorithms(True)
    try:
        record = run(arguments.data, arguments.output, Recipe(epochs=arguments.epochs), classes)
    except FileNotFoundError as error:
        parser.error(str(error))
    text = json.dumps(record, indent=2) + "\n"
    (arguments.output / "training.json").write_text(text, encoding="utf-8")
    print(f"{arguments.output}: {record['test_accuracy']:.2%} of the test images")


if __name__ == "__main__":
    main()
