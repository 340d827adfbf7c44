"""What ``make demo-finetune`` starts from, as it is committed, and what it says at its end."""

import functools
import json
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cleanlab.filter import find_label_issues

from cvt import CvtForImageClassification, CvtImageProcessor
from jobs.demo.data import CLASS_NAMES
from jobs.demo.finetune.__main__ import BASE, LESSONS, compared
from jobs.demo.finetune.build import EACH, LABEL, VAL_SHARE
from pipeline.model.training.heads import label_issues, out_of_fold
from pipeline.runs.finetune.labelled.split import Division, folds

NEW = ("Shirt", "Sneaker")


@functools.cache
def lessons() -> tuple[list[bytes], list[str]]:
    table = pq.read_table(LESSONS)
    return table["image"].to_pylist(), table[LABEL].to_pylist()


def test_sizes_stay_under_their_limits() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 3_000_000
    assert LESSONS.stat().st_size <= 600_000


def test_fifty_of_each_class_are_learned_from_and_fifty_held_out() -> None:
    images, labels = lessons()
    contents = [sha256(image).hexdigest() for image in images]
    division = Division.of(labels, contents, VAL_SHARE)
    assert set(division.classes) == set(CLASS_NAMES)
    for is_held_out in (False, True):
        assert set(division.counts(held_out=is_held_out).values()) == {EACH}


def test_the_base_knows_eight_classes_and_not_the_others() -> None:
    model = CvtForImageClassification.from_pretrained(BASE)
    names = model.config.id2label
    assert sorted(names.values()) == sorted(set(CLASS_NAMES) - set(NEW))
    images, labels = lessons()
    known = [number for number, label in enumerate(labels) if label not in NEW][::2]
    pixels = CvtImageProcessor.from_pretrained(BASE)([images[number] for number in known])
    with torch.inference_mode():
        predicted = model(pixels).logits.argmax(dim=1).tolist()
    right = [names[p] == labels[n] for p, n in zip(predicted, known, strict=True)]
    assert np.mean(right) >= 0.93
    record: dict[str, Any] = json.loads((BASE / "training.json").read_text(encoding="utf-8"))
    assert record["test_accuracy"] >= 0.95


def test_wrong_labels_are_those_that_cleanlab_finds() -> None:
    """Of the thousand lessons, 5 % of whose labels are others, by its confident learning."""
    images, labels = lessons()
    pixels = CvtImageProcessor.from_pretrained(BASE)(images)
    with torch.inference_mode():
        vectors = CvtForImageClassification.from_pretrained(BASE)(pixels).embedding.numpy()
    rng = np.random.default_rng(0)
    targets = np.array([CLASS_NAMES.index(label) for label in labels], np.int64)
    flipped = rng.permutation(len(targets))[:50]
    targets[flipped] = (targets[flipped] + rng.integers(1, 10, 50)) % 10
    judged = out_of_fold(vectors, targets, folds([sha256(one).hexdigest() for one in images]), 10)
    found = set(label_issues(judged, targets).rows.tolist())
    assert found == set(
        find_label_issues(
            targets,
            judged,
            filter_by="confident_learning",
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        ).tolist()
    )
    assert len(found & {*flipped.tolist()}) >= 40


def test_it_counts_what_was_held_out() -> None:
    rows = pa.table(
        {
            "uri": ["a", "b", "c", "d"],
            "label": ["Shirt", "Shirt", "Bag", "Bag"],
            "predicted": ["Shirt", "Bag", "Bag", "Bag"],
            "before": ["Coat", "Bag", "Bag", "Coat"],
        }
    )
    assert list(compared(rows)) == [
        "accuracy on the 4 images held out: 25.0% before, 75.0% after",
        "  Shirt, which the base cannot name: 0 of 2 right before, 1 after",
    ]
