"""Networks that are trained on images, whole: by Ray Train, with workers that are killed."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import transformers

from cvt import CvtForImageClassification, CvtImageProcessor
from jobs.bench.synthetic.models import write_model
from pipeline.contract.errors import ExitCode, LostNodesError, RunError, UsageError
from pipeline.contract.spec import FinetuneSpec
from pipeline.runs.finetune.images import training
from pipeline.runs.finetune.images.training import Begun, recipe_of, trainers
from pipeline.runs.finetune.images.work import Work
from pipeline.runs.finetune.job import finetune
from pipeline.stages.nodes import Node
from pipeline.stages.train import supervision
from pipeline.stages.train.group import Group
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.inputs.images import COLOURS, write_kinds
from tests.support.processes.victims import below, kill


@pytest.fixture
def spec(tmp_path: Path) -> FinetuneSpec:
    write_kinds(tmp_path / "in", 16)
    return FinetuneSpec(
        outputs=(str(tmp_path / "in"),),
        output=str(tmp_path / "models"),
        model=str(write_model(tmp_path / "model", "small")),
        label_from="directory",
        train="all",
        epochs=4,
        batch_size=12,
        learning_rate=1e-3,
    )


@pytest.fixture
def dead(spec: FinetuneSpec) -> Iterator[list[int]]:
    """The worker that dies as soon as it has saved something."""
    store, over = Store(spec.output), threading.Event()
    dead: list[int] = []

    def strike() -> None:
        while not over.is_set():
            saved = [name for name in store.list("_open") if "/training/step-" in name]
            if saved and (workers := below(os.getpid(), "RayTrainWorker")):
                kill(workers[0])
                dead.append(workers[0])
                return
            time.sleep(0.02)

    killer = threading.Thread(target=strike)
    killer.start()
    yield dead
    over.set()
    killer.join()


@pytest.mark.usefixtures("ray_of_its_own")
def test_the_model_answers_as_it_did_in_training(spec: FinetuneSpec, dead: list[int]) -> None:
    """Though a worker was killed on the way; and in transformers."""
    result = finetune(spec)
    assert len(dead) == 1
    assert result.exit_code == ExitCode.OK
    assert result.metrics["accuracy"] > 0.8
    assert len(result.metrics["epochs"]) == 4
    folder = Path(result.model_uri)
    ours = CvtForImageClassification.from_pretrained(folder)
    assert ours.config.id2label == dict(enumerate(sorted(COLOURS)))
    told = read_table(result.store, f"models/{result.run_id}/predictions.parquet").to_pylist()
    processor = CvtImageProcessor.from_pretrained(folder)
    files = [Path(row["uri"]).read_bytes() for row in told]
    pixels = np.stack([processor.pixels_from_bytes(file, mode="fast").pixels for file in files])
    with torch.inference_mode():
        values = processor.normalize(pixels)
        logits = ours(values).logits
        oracle = transformers.CvtForImageClassification.from_pretrained(folder).eval()
        assert (oracle(values).logits - logits).abs().max() < 1e-5
        scores, names = logits.softmax(dim=1).max(dim=1)
    assert np.abs(scores.numpy() - [row["score"] for row in told]).max() < 1e-5
    classes = ours.config.id2label
    assert [classes[n] for n in names.tolist()] == [row["predicted"] for row in told]
    assert not result.store.list("_open")
    again = finetune(spec)
    assert (again.run_id, again.is_new) == (result.run_id, False)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_its_own")
def test_of_several_labels_it_answers_as_transformers_does(
    spec: FinetuneSpec, tmp_path: Path
) -> None:
    """Two of the kinds have a label in common, and the third has none."""
    told = {"ant": "small;six legs", "bee": "small", "cow": ""}
    labels = tmp_path / "labels.csv"
    paths = sorted((tmp_path / "in").rglob("*.jpg"))
    labels.write_text("uri,label\n" + "".join(f"{p},{told[p.parent.name]}\n" for p in paths))
    result = finetune(
        replace(
            spec,
            label_from=None,
            labels=(str(labels),),
            multi_label=";",
            class_weights="auto",
            epochs=2,
        )
    )
    assert result.exit_code == ExitCode.OK
    folder = Path(result.model_uri)
    rows = read_table(result.store, f"models/{result.run_id}/predictions.parquet").to_pylist()
    processor = CvtImageProcessor.from_pretrained(folder)
    files = [Path(row["uri"]).read_bytes() for row in rows]
    pixels = np.stack([processor.pixels_from_bytes(file, mode="fast").pixels for file in files])
    oracle = transformers.CvtForImageClassification.from_pretrained(folder).eval()
    assert oracle.config.problem_type == "multi_label_classification"
    with torch.inference_mode():
        scores = oracle(processor.normalize(pixels)).logits.sigmoid().numpy()
    assert np.abs(scores - np.array([row["scores"] for row in rows])).max() < 1e-5
    assert {row["label"] for row in rows} == {"six legs;small", "small", ""}
    assert len(result.metrics["epochs"]) == 2


def test_what_is_refused(spec: FinetuneSpec) -> None:
    with pytest.raises(UsageError, match="learning_rate is 0"):
        replace(spec, learning_rate=0.0)
    with pytest.raises(UsageError, match="layer_decay is 2"):
        replace(spec, layer_decay=2.0)
    with pytest.raises(UsageError, match="epochs is 0"):
        replace(spec, epochs=0)
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match=rf"ema is {wrong}; it must be from 0 to below 1"):
            replace(spec, ema=wrong)
    for wrong in (-0.1, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=rf"mixup is {wrong}; it must be a number from 0 up"):
            replace(spec, mixup=wrong)
    with pytest.raises(UsageError, match=r"\.ema needs finetune\.train last or all"):
        replace(spec, train="head", ema=0.9)
    with pytest.raises(UsageError, match=r"\.mixup needs finetune\.train last or all"):
        replace(spec, train="head", mixup=0.2)


def nodes(*sizes: tuple[float, float]) -> list[Node]:
    return [Node(cpus=c, gpus=g, memory=2**34, host=f"h{n}") for n, (c, g) in enumerate(sizes)]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The nodes that are left when a training of a larger group ends."""
    found: list[Node] = []

    def train(lesson: Group, checkpoint: object, group: Group) -> None:
        if not group.finds_room(found):
            raise LostNodesError(f"no room for {group}")
        assert lesson == group

    monkeypatch.setattr(supervision, "train", train)
    monkeypatch.setattr(training, "nodes", lambda: found)
    monkeypatch.setattr(training, "Begun", Mock(of=lambda *_: Begun(workers=2)))
    monkeypatch.setattr(training, "_lesson", lambda *given: given[-1])
    monkeypatch.setattr(training, "_learnt", lambda *given: given[-1])
    return found


def test_a_training_that_lost_nodes_goes_on_with_what_is_left(
    spec: FinetuneSpec, left: list[Node], caplog: pytest.LogCaptureFixture
) -> None:
    def learnt(spec: FinetuneSpec) -> Any:
        return training.trained(spec, Mock(), Mock(), Mock(), Mock(), Group(2, 4, on_gpus=True))

    caplog.set_level(logging.INFO, training.__name__)
    left += nodes((4, 1), (2, 0))
    assert learnt(spec) == 1
    assert caplog.messages == [
        "no room for 2 workers with a GPU each; going on with 1 worker with a GPU each",
        "the training was begun with <finetune.num_workers> 2, and goes on with 1, which changes "
        "rounding alone",
    ]
    with pytest.raises(RunError, match=r"is not enough: finetune\.num_workers 2 is more"):
        learnt(replace(spec, num_workers=2))
    left[:] = nodes((4, 0))
    with pytest.raises(RunError, match="what is left has no GPU; start the same command again"):
        learnt(spec)


@pytest.mark.parametrize(
    ("size", "mixup", "is_frozen"),
    [(40, 0.0, False), (8, 0.0, True), (8, 0.2, True), (40, 0.2, False)],
)
def test_what_was_begun_stays_however_many_go_on(
    spec: FinetuneSpec,
    size: int,
    mixup: float,
    is_frozen: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two workers with twenty images each would leave BatchNorm as it is."""
    caplog.set_level(logging.INFO, training.__name__)
    work, given = Work(Store(spec.output), "run"), replace(spec, batch_size=size, mixup=mixup)
    begun = [Begun.of(recipe_of(given, workers), workers, work) for workers in (1, 1, 2)]
    assert [one.frozen_statistics for one in begun] == [is_frozen] * 3
    (said,) = caplog.messages
    assert "was begun with <finetune.num_workers> 1, and goes on with 2, " in said
    is_alike = is_frozen and not mixup
    assert said.endswith("rounding alone" if is_alike else "so the weights will differ")
    assert ("BatchNorm" in said) == (not is_frozen)


def test_workers_get_what_there_is() -> None:
    """Ray would wait for ever for what there is not."""
    assert Group.fit(nodes((8, 0)), None, None) == Group(1, 8, on_gpus=False)
    assert Group.fit(nodes((8, 0)), 2, None) == Group(2, 4, on_gpus=False)
    assert Group.fit(nodes((8, 0), (3, 0)), 3, None) == Group(3, 3, on_gpus=False)
    assert Group.fit(nodes((16, 2)), None, None) == Group(2, 8, on_gpus=True)
    assert Group.fit(nodes((16, 2), (4, 2)), None, None) == Group(4, 2, on_gpus=True)
    assert Group.fit(nodes((16, 2)), None, 1) == Group(1, 16, on_gpus=True)
    assert Group.fit(nodes((16, 2)), 4, 0) == Group(4, 4, on_gpus=False)
    for workers, gpus in ((9, None), (3, 2), (None, 3)):
        with pytest.raises(UsageError):
            Group.fit(nodes((8, 2)), workers, gpus)


def test_every_worker_has_an_image_of_a_step(
    spec: FinetuneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would compute for nothing."""
    monkeypatch.setattr(training, "connect", lambda *_, **__: None)
    monkeypatch.setattr(training, "nodes", lambda: nodes((16, 0)))
    monkeypatch.setattr(training, "check_shared", lambda store: None)
    with trainers(replace(spec, num_workers=12), Store(spec.output)) as group:
        group.check_shares(12)
    with pytest.raises(UsageError, match=r"11 images of a step, .*num_workers to 11 or"):
        group.check_shares(11)
    with (
        pytest.raises(UsageError, match="13 workers share the 12 images of a step"),
        trainers(replace(spec, num_workers=13), Store(spec.output)),
    ):
        pytest.fail("there is no step")
