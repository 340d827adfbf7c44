"""Trainings in this process: what is learned, what is saved, and that no kill changes a bit."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as Parallel

from pipeline.contract.errors import RunError
from pipeline.stages.train import worker as loop
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.pictures import Pictures
from pipeline.stages.train.saved import Progress, Saved
from pipeline.stages.train.worker import Worker
from pipeline.storage.store import Store
from tests.support.models.checkpoints import write_checkpoint
from tests.support.outputs.finetuning import RECIPE, beginner, lesson_of

AVERAGED = replace(RECIPE, ema=0.9, mixup=0.2)
STEPS = 9  # of 24 images, in batches of 8, in three epochs


def learn(lesson: Lesson, checkpoint: Path, **state: Any) -> Worker:
    """A training in this process, from wherever it was saved, to its end or until it is stopped."""
    with ThreadPoolExecutor(1) as pool:
        worker = Worker(lesson, beginner(checkpoint), pool, **state)
        if worker.learn():
            worker.answer()
        return worker


class Killed(BaseException):
    """Takes the place of a SIGKILL in this process."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    return lesson_of(tmp_path / "in", Store(str(tmp_path / "models")), save_seconds=0.0)


@pytest.fixture
def elsewhere(lesson: Lesson, tmp_path: Path) -> Lesson:
    """The same lesson, with nothing saved."""
    return lesson_of(tmp_path / "in", Store(str(tmp_path / "others")), save_seconds=0.0)


def files(lesson: Lesson) -> list[str]:
    return [name.rpartition("/")[2] for name in lesson.models.list("_open/lesson/training")]


def end_of(lesson: Lesson) -> tuple[Progress, dict[str, torch.Tensor], torch.Tensor]:
    """What a finished training has saved: progress, weights, answers."""
    saved = Saved(lesson.models, lesson.run_id)
    found = saved.newest()
    assert found is not None
    progress, learner = found
    return progress, learner["model"] | saved.best(progress), saved.answers(30, 3, 1)


def assert_same_end(one: Lesson, other: Lesson) -> None:
    (progress, weights, answers), (expected, theirs, said) = end_of(one), end_of(other)
    assert progress == expected
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
    assert torch.equal(answers, said)


def test_it_learns_and_answers_for_every_picture(lesson: Lesson, tiny: Path) -> None:
    worker = learn(replace(lesson, recipe=replace(RECIPE, epochs=8)), tiny)
    progress, _, answers = end_of(lesson)
    assert progress.is_done
    assert len(progress.course) == progress.epoch == 8
    assert progress.course[-1]["train_loss"] < progress.course[0]["train_loss"]
    best = progress.course[progress.best or 0]
    assert best["accuracy"] == max(one["accuracy"] for one in progress.course)
    held = torch.from_numpy(np.flatnonzero(lesson.held_out))
    right = answers.argmax(dim=1) == torch.from_numpy(lesson.targets)
    assert right[held].float().mean() == pytest.approx(best["accuracy"])
    assert right.float().mean() > 0.8
    model = beginner(tiny).with_weights(worker.saved.best(progress))
    pixels = np.stack([worker.learner.look(worker.pictures[n], n, None) for n in range(30)])
    expected = model.reference(pixels, "cls_norm").logits
    assert np.abs(answers.numpy() - expected).max() < 1e-5


def test_the_last_two_steps_and_the_best_epoch_are_kept(lesson: Lesson, tiny: Path) -> None:
    learn(lesson, tiny)
    best = end_of(lesson)[0].best
    assert files(lesson) == [
        "answers-0.pt",
        f"best-{best:04d}.pt",
        f"step-{STEPS - 1:09d}.pt",
        f"step-{STEPS:09d}.pt",
    ]


def killed_in(call: Callable[..., None], after: int) -> Callable[..., None]:
    """The function, until it was called so often; then the process is dead."""
    calls = iter(range(after))

    def dying(*arguments: object, **options: object) -> None:
        if next(calls, None) is None:
            raise Killed
        call(*arguments, **options)

    return dying


@pytest.mark.parametrize("seed", range(5))
def test_kills_change_no_bit(
    lesson: Lesson, elsewhere: Lesson, tiny: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Before a write, in the middle of one, and after it; again and again."""
    if seed == 4:
        lesson, elsewhere = (replace(one, recipe=AVERAGED) for one in (lesson, elsewhere))
    learn(elsewhere, tiny)
    rng = np.random.default_rng(seed)
    write, remove = Store.write_bytes, Store.remove_file
    kills = 0
    while not (files(lesson) and files(lesson)[0].startswith("answers")):
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_bytes", killed_in(write, int(rng.integers(1, 7))))
            patch.setattr(Store, "remove_file", killed_in(remove, int(rng.integers(1, 9))))
            try:
                learn(lesson, tiny)
            except Killed:
                kills += 1
                (Path(lesson.models.uri) / "_open/lesson/training/.step.0a.tmp").write_bytes(b"ha")
    assert kills > 1
    assert_same_end(lesson, elsewhere)


def test_a_damaged_file_costs_a_step(lesson: Lesson, elsewhere: Lesson, tiny: Path) -> None:
    learn(elsewhere, tiny)
    asked = iter([False] * 5 + [True])
    learn(lesson, tiny, is_asked_to_stop=lambda: next(asked))
    newest = Path(lesson.models.uri) / "_open/lesson/training/step-000000005.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    learn(lesson, tiny)
    assert_same_end(lesson, elsewhere)


def test_whoever_asks_to_stop_finds_it_saved(lesson: Lesson, elsewhere: Lesson, tiny: Path) -> None:
    seldom = replace(lesson, save_seconds=1e9)
    asked = iter([False, False, True])
    worker = learn(seldom, tiny, is_asked_to_stop=lambda: next(asked))
    assert not worker.progress.is_done
    assert files(lesson) == ["step-000000002.pt"]
    learn(seldom, tiny)
    learn(elsewhere, tiny)
    assert_same_end(lesson, elsewhere)


def test_more_workers_go_on_where_fewer_stopped(
    lesson: Lesson, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last image of an epoch, too; the first of two is at work here."""
    odd = replace(lesson, held_out=np.arange(30) % 6 == 0)
    asked = iter([False] * 11 + [True])
    before = learn(odd, tiny, is_asked_to_stop=lambda: next(asked))
    assert (before.progress.epoch, before.progress.batches) == (2, 3)
    monkeypatch.setattr(Worker, "_sum", lambda worker, values: [2 * value for value in values])
    monkeypatch.setattr(Worker, "_agree", lambda worker: None)
    monkeypatch.setattr(loop, "prepare_model", lambda module, **_: module)
    after = learn(odd, tiny, workers=2)
    found = after.saved.newest()
    assert found is not None
    assert found[0] == after.progress
    assert after.progress.is_done


def learn_as(rank: int, lesson: Lesson, checkpoint: Path, end: Path) -> None:
    """One of two processes that learn together; leaves what it found at ``end``."""
    torch.set_num_threads(1)
    meeting = f"file://{lesson.models.uri}/meeting"
    dist.init_process_group("gloo", meeting, timedelta(minutes=2), world_size=2, rank=rank)
    wrapping = patch.object(loop, "prepare_model", lambda model, **_: Parallel(model))
    with wrapping, ThreadPoolExecutor(1) as pool:
        worker = Worker(lesson, beginner(checkpoint), pool, rank=rank, workers=2)
        assert worker.learn()
        found = [(epoch["loss"], epoch["accuracy"]) for epoch in worker.progress.course]
        torch.save((worker.learner.weights, found), end)
        worker.answer()
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:Grad strides")
def test_workers_find_the_same_average(lesson: Lesson, tiny: Path, tmp_path: Path) -> None:
    """Bit for bit, though they exchange nothing but gradients and what BatchNorm has found."""
    taught = replace(lesson, recipe=replace(AVERAGED, frozen_statistics=False))
    ends = [tmp_path / "first.pt", tmp_path / "second.pt"]
    second = get_context("spawn").Process(target=learn_as, args=(1, taught, tiny, ends[1]))
    second.start()
    learn_as(0, taught, tiny, ends[0])
    second.join()
    assert second.exitcode == 0
    (weights, course), (others, theirs) = (torch.load(end) for end in ends)
    assert course == theirs
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert Saved(taught.models, taught.run_id).answers(30, 3, workers=2).isfinite().all()


def test_a_finished_training_only_answers(lesson: Lesson, tiny: Path) -> None:
    learn(lesson, tiny)
    before = end_of(lesson)
    lesson.models.remove_file("_open/lesson/training/answers-0.pt")
    again: Worker = learn(lesson, tiny)
    assert again.progress == before[0]
    assert torch.equal(end_of(lesson)[2], before[2])


def test_patience_ends_it(lesson: Lesson, tiny: Path) -> None:
    still = replace(RECIPE, epochs=50, learning_rate=1e-12, augment="none")
    worker = learn(replace(lesson, recipe=still, patience=2), tiny)
    assert worker.progress.epoch < 12
    assert worker.progress.waited == 2


def test_only_the_last_stage_learns(lesson: Lesson, tiny: Path) -> None:
    learn(replace(lesson, last_stage=True, recipe=replace(RECIPE, epochs=1)), tiny)
    before, after = beginner(tiny).arrays, end_of(lesson)[1]
    changed = {name for name in before if not np.array_equal(before[name], after[name].numpy())}
    assert {name.split(".")[2] for name in changed if name.startswith("backbone")} == {"2"}


def test_a_picture_that_is_missing(lesson: Lesson) -> None:
    with pytest.raises(RunError, match="1 pictures are missing"):
        Pictures(lesson.images, lesson.files, [*lesson.uris, "/another.jpg"])
