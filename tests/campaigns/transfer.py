"""Print how well a model of eight classes learns ten: from few labels and many, the classifier
alone and the whole network, with one recipe and another; and which wrong labels it finds.

python -m tests.campaigns.transfer [--data DIR] [--parts head errors network weights steadier]

The model is that of jobs.demo.finetune. Labels are of the first 5,000 test images of Fashion-MNIST,
accuracy is on the other 5,000 (its standard error is 0.5 %), of trained networks on 1,000 of them
(1 %). It takes some minutes of one core, most of them for ``head``.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from cleanlab.filter import find_label_issues
from PIL import Image

from cvt import CvtForImageClassification, CvtImageProcessor
from jobs.bench.measure.tables import table
from jobs.demo.build_bucket import png
from jobs.demo.data import CLASS_NAMES, DEFAULT_ROOT, load_split
from jobs.demo.finetune.__main__ import BASE
from pipeline.contract import layout
from pipeline.contract.schema import TRAINING_PICTURE
from pipeline.contract.spec import ModelSpec
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.heads import (
    Evaluation,
    balanced_weights,
    fit_probe,
    label_issues,
    out_of_fold,
)
from pipeline.model.training.recipes import Recipe
from pipeline.runs.finetune.labelled.split import folds
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.saved import Saved
from pipeline.stages.train.worker import Worker
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store

LABELLED, HELD_OUT = 5000, 1000
EACH = (5, 10, 20, 50, 100, 200)
DRAWS = 3
RARE = tuple(CLASS_NAMES.index(name) for name in ("Shirt", "Sneaker"))
"""The classes that the model does not know; ``weights`` has five labels of each of them."""
LIVE, FROZEN = {"batch_size": 32, "frozen_statistics": False}, {"batch_size": 32}
RECIPES: dict[str, dict[str, Any]] = {
    "last": {"last_stage": True},
    "all": {},
    "all, layer decay 0.75": {"layer_decay": 0.75},
    "all, batch 32, statistics live": LIVE,
    "all, batch 32, statistics frozen": FROZEN,
}
STEADIER: dict[str, dict[str, Any]] = {
    "all": {},
    "all, ema 0.99": {"ema": 0.99},
    "all, mixup 0.2": {"mixup": 0.2},
    "all, both": {"ema": 0.99, "mixup": 0.2},
}
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ground:
    """Fashion-MNIST's test images, and what the base makes of them."""

    files: list[bytes]
    targets: Integers
    vectors: npt.NDArray[np.float32]
    base: TrainableCheckpoint

    @classmethod
    def of(cls, data: Path) -> "Ground":
        images, targets = load_split(data, "t10k")
        files = [png(Image.fromarray(pixels)) for pixels in images]
        model = CvtForImageClassification.from_pretrained(BASE)
        processor, found = CvtImageProcessor.from_pretrained(BASE), []
        with torch.inference_mode():
            for start in range(0, len(files), 500):
                found.append(model(processor(files[start : start + 500])).embedding.numpy())
        base = load_checkpoint(ModelSpec(source=str(BASE)))
        assert isinstance(base, TrainableCheckpoint)
        return cls(files, targets, np.concatenate(found), base)

    def draw(self, each: int | None, seed: int = 0) -> Integers:
        """Numbers of labelled images: so many of each class, or all."""
        order = np.random.default_rng(seed).permutation(LABELLED)
        return np.concatenate([order[self.targets[order] == c][:each] for c in range(10)])

    def taught(
        self, rows: Integers, *, last_stage: bool = False, balanced: bool = False, **recipe: Any
    ) -> Evaluation:
        """A network that was trained on some images, from the head that fits them, on others."""
        head = fit_probe(self.vectors[rows], self.targets[rows], 10, balanced=balanced)
        weight, bias = head.weight.astype(np.float32), head.bias.astype(np.float32)
        start = self.base.with_head(weight, bias, CLASS_NAMES)
        numbers = np.concatenate([rows, np.arange(LABELLED, LABELLED + HELD_OUT)])
        weights = balanced_weights(self.targets[rows], 10) if balanced else np.array([])
        taught = Recipe(class_weights=tuple(weights.tolist()), **recipe)
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
            lesson = self._lesson(Store(folder), numbers, taught, last_stage=last_stage)
            worker = Worker(lesson, start, pool)
            worker.learn()
            worker.answer()
            logits = Saved(lesson.models, lesson.run_id).answers(len(numbers), 10, 1)
        held = slice(len(rows), None)
        return Evaluation.of(
            logits[held].double().softmax(dim=1).numpy(), self.targets[numbers][held]
        )

    def _lesson(
        self, store: Store, numbers: Integers, recipe: Recipe, *, last_stage: bool
    ) -> Lesson:
        uris = [f"{number:05d}.png" for number in numbers]
        pictures = pa.array([self.files[number] for number in numbers], TRAINING_PICTURE.type)
        packed = pa.table({"uri": uris, TRAINING_PICTURE.name: pictures})
        write_table(store, f"{layout.packed_images('r')}/pictures.parquet", packed)
        return Lesson(
            recipe=recipe,
            last_stage=last_stage,
            patience=99,
            targets=self.targets[numbers],
            held_out=numbers >= LABELLED,
            uris=uris,
            files=["pictures.parquet"],
            models=store,
            run_id="r",
            environment=WorkerEnvironment.capture(),
        )


def head(ground: Ground) -> Iterator[tuple[str, ...]]:
    """By the number of labels, with two penalties; the mean of some draws."""
    yield ("labels per class", "penalty 1", "penalty 10", "CPU s of a fit")
    held, truth = ground.vectors[LABELLED:], ground.targets[LABELLED:]
    for each in (*EACH, None):
        draws = [ground.draw(each, seed) for seed in range(DRAWS if each else 1)]
        started, cells = time.process_time(), []
        for penalty in (1.0, 10.0):
            probes = [fit_probe(ground.vectors[d], ground.targets[d], 10, penalty) for d in draws]
            right = [probe.probabilities(held).argmax(axis=1) == truth for probe in probes]
            cells.append(f"{np.mean(right):.1%}")
        seconds = (time.process_time() - started) / (2 * len(draws))
        yield (str(each or "all"), *cells, f"{seconds:.2f}")


def network(ground: Ground) -> Iterator[tuple[str, ...]]:
    """By how much is trained and by the recipe, from fifty labels per class and from all."""
    yield ("trained", "labels per class", "epochs", "accuracy", "CPU s")
    for each, epochs, recipes in ((50, 10, RECIPES), (None, 3, {"all": {}})):
        rows = ground.draw(each)
        yield ("head", str(each or "all"), "", f"{_of_head(ground, rows).accuracy:.1%}", "")
        for name, settings in recipes.items():
            started = time.process_time()
            found = ground.taught(rows, **settings, epochs=epochs)
            seconds = time.process_time() - started
            told = (f"{found.accuracy:.1%}", f"{seconds:.0f}")
            yield (name, str(each or "all"), str(epochs), *told)


def _of_head(ground: Ground, rows: Integers, *, balanced: bool = False) -> Evaluation:
    """The head alone, on the images that networks are held against."""
    held = slice(LABELLED, LABELLED + HELD_OUT)
    probe = fit_probe(ground.vectors[rows], ground.targets[rows], 10, balanced=balanced)
    return Evaluation.of(probe.probabilities(ground.vectors[held]), ground.targets[held])


def weights(ground: Ground) -> Iterator[tuple[str, ...]]:
    """Of fifty labels of eight classes, and five of two."""
    yield ("trained", "class weights", "accuracy", "macro recall", "recall of the rare two")
    rows, few = ground.draw(50), ground.draw(5)
    rows = rows[~np.isin(ground.targets[rows], RARE) | np.isin(rows, few)]
    for name, teach in (("head", _of_head), ("all", Ground.taught)):
        for balanced in (False, True):
            found = teach(ground, rows, balanced=balanced)
            shown = (found.accuracy, found.recall.mean(), found.recall[list(RARE)].mean())
            yield (name, "auto" if balanced else "none", *(f"{value:.1%}" for value in shown))


def steadier(ground: Ground) -> Iterator[tuple[str, ...]]:
    """With averaged weights and blended images: some draws of fifty labels per class."""
    yield ("trained", *(f"draw {seed}" for seed in range(DRAWS)), "mean", "miscalibrated", "CPU s")
    for name, settings in STEADIER.items():
        started = time.process_time()
        found = [ground.taught(ground.draw(50, s), seed=s, **settings) for s in range(DRAWS)]
        seconds = (time.process_time() - started) / DRAWS
        right = [one.accuracy for one in found]
        error = np.mean([one.calibration_error for one in found])
        shown = (f"{value:.1%}" for value in (*right, np.mean(right), error))
        yield (name, *shown, f"{seconds:.0f}")


def errors(ground: Ground) -> Iterator[tuple[str, ...]]:
    """Of all labels, 5 % of which are others: by ours, and by cleanlab from the same scores."""
    yield ("labels in doubt", "flagged", "of them flipped", "recall", "precision")
    rng, count = np.random.default_rng(0), LABELLED // 20
    targets = ground.targets[:LABELLED].copy()
    flipped = rng.permutation(LABELLED)[:count]
    targets[flipped] = (targets[flipped] + rng.integers(1, 10, count)) % 10
    parts = folds([str(number) for number in range(LABELLED)])
    judged = out_of_fold(ground.vectors[:LABELLED], targets, parts, 10)
    ours = label_issues(judged, targets).rows.tolist()
    theirs = _cleanlab(targets, judged, "confident_learning")
    ways = {
        "ours": ours,
        f"ours, the first {count}": ours[:count],
        f"cleanlab, confident_learning ({'' if {*theirs} == {*ours} else 'not '}the same)": theirs,
        "cleanlab, its default": _cleanlab(targets, judged, "prune_by_noise_rate"),
    }
    for name, rows in ways.items():
        both = len({*rows} & {*flipped.tolist()})
        yield (name, str(len(rows)), str(both), f"{both / count:.1%}", f"{both / len(rows):.1%}")


def _cleanlab(targets: Integers, judged: Any, way: str) -> list[int]:
    found: Integers = find_label_issues(
        targets, judged, filter_by=way, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return [int(row) for row in found]


PARTS = {part.__name__: part for part in (head, errors, network, weights, steadier)}


def _as_they_come(rows: Iterator[tuple[str, ...]]) -> Iterator[Sequence[str]]:
    """Show each at once, for a part takes minutes."""
    for row in rows:
        print(*row, sep="  ", file=sys.stderr, flush=True)
        yield row


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_ROOT)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    a = parser.parse_args()
    torch.set_num_threads(1)
    ground = Ground.of(a.data)
    for name in a.parts:
        titles, *rows = _as_they_come(PARTS[name](ground))
        print(f"{name}\n{table(titles, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
