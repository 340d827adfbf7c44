"""What each worker does: learn its share of every step, and save, if it is the first of them.

All that is random depends on seed, epoch, step and image, so that a worker that goes on from a
saved step computes what it would have computed, and several together what one would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
import torch.distributed as dist
from ray import train
from ray.train.torch import get_device, prepare_model

from pipeline.contract.errors import RunError
from pipeline.model.network import Learner, Pixels, TrainableCheckpoint
from pipeline.model.training.recipes import Portion
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.measures import held_against
from pipeline.stages.train.pictures import Pictures, decoded_ahead
from pipeline.stages.train.saved import Progress, Saved
from pipeline.stages.train.talk import stop
from pipeline.stages.train.talk.whereabouts import say_at_work
from pipeline.stages.watching.reach import reaching

CPU = torch.device("cpu")
Numbers = npt.NDArray[np.intp]


def work(config: dict[str, Any]) -> None:
    """The loop that Ray Train runs in every worker; ``config`` has the ``lesson``, and a reference
    to the ``checkpoint`` to begin with."""
    lesson: Lesson = config["lesson"]
    lesson.environment.apply()
    context = train.get_context()
    rank = context.get_world_rank()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, reaching(lesson.models.uri):
        worker = Worker(
            lesson,
            ray.get(config["checkpoint"]),
            pool,
            rank=rank,
            workers=context.get_world_size(),
            device=get_device(),
            is_asked_to_stop=partial(stop.is_asked_to_stop, lesson.run_id),
        )
        say_at_work(lesson.run_id, rank, worker.done)
        if worker.learn():
            worker.answer()
        elif rank == 0:
            stop.say_stopped(lesson.run_id)


class Worker:
    """One of the ``workers`` that learn together."""

    def __init__(
        self,
        lesson: Lesson,
        checkpoint: TrainableCheckpoint,
        pool: Executor,
        *,
        rank: int = 0,
        workers: int = 1,
        device: torch.device = CPU,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin, or go on from what was saved.

        Args:
            pool: what decodes pictures.
            is_asked_to_stop: whether the driver wants the training saved and ended.
        """
        self.lesson, self.pool, self.rank, self.workers = lesson, pool, rank, workers
        self.device, self.is_asked_to_stop = device, is_asked_to_stop
        self.saved = Saved(lesson.models, lesson.run_id)
        self.pictures = Pictures(lesson.images, lesson.files, lesson.uris)
        steps = lesson.recipe.epochs * lesson.steps
        self.learner: Learner = checkpoint.learner(
            lesson.recipe, steps, device, last_stage=lesson.last_stage
        )
        self.progress = Progress()
        if (found := self.saved.newest()) is not None:
            self.progress, state = found
            self.learner.take_up(state)
        if workers > 1:
            self._check_agreement()
            self.learner.share(partial(prepare_model, move_to_device=False))
        self._saved_at = time.monotonic()

    def learn(self) -> bool:
        """Train to the end; False if the driver has asked to stop."""
        while not self.progress.is_done:
            if not self._epoch():
                return False
            is_best = self.progress.end_epoch(*self._evaluate())
            self.progress.is_done = (
                self.progress.epoch >= self.lesson.recipe.epochs
                or self.progress.waited >= self.lesson.patience
            )
            if self.rank == 0:
                if is_best:
                    self.saved.save_best(self.progress.epoch - 1, self.learner.weights)
                self._save()
        return True

    def _check_agreement(self) -> None:
        """Make sure, before one of them saves again, that all go on from the same step.

        Raises:
            RunError: they do not: one could not read what others could.
        """
        if self._sum([self.done]) != [self.workers * self.done]:
            raise RunError("workers have read different steps of the training")

    def _epoch(self) -> bool:
        """The rest of an epoch; False if the driver has asked to stop."""
        progress, epoch = self.progress, self.progress.epoch
        pieces = self.lesson.pieces(epoch)[progress.batches :]
        portions = [Portion(len(piece), self.rank, self.workers) for piece in pieces]
        mine = [piece[portion.places] for piece, portion in zip(pieces, portions, strict=True)]
        seen = decoded_ahead(self.pool, partial(self._look, epoch), mine)
        for portion, (numbers, pixels) in zip(portions, seen, strict=True):
            if self._is_over():
                return False
            loss = self.learner.step(pixels, self.lesson.targets[numbers], portion)
            progress.losses += self._sum([loss * portion.weight / self.workers])
            progress.batches += 1
            if self.rank == 0 and time.monotonic() - self._saved_at > self.lesson.save_seconds:
                self._save()
        return True

    def _look(self, epoch: int | None, number: int) -> Pixels:
        return self.learner.look(self.pictures[number], number, epoch)

    def _is_over(self) -> bool:
        """Whether to stop before the next step, which all workers do together."""
        asked = self.rank == 0 and self.is_asked_to_stop()
        is_over = bool(self._sum([asked])[0])
        if is_over and self.rank == 0:
            self._save()
        return is_over

    def _save(self) -> None:
        self.saved.save(self.done, self.progress, self.learner.state())
        self._saved_at = time.monotonic()

    @property
    def done(self) -> int:
        """Steps of the whole training."""
        return self.progress.epoch * self.lesson.steps + self.progress.batches

    def _answers(self, numbers: Numbers) -> Iterator[tuple[Numbers, npt.NDArray[np.float32]]]:
        """The logits of this worker's share of images, a batch at a time."""
        mine, size = numbers[self.rank :: self.workers], self.lesson.recipe.batch_size
        pieces = [mine[start : start + size] for start in range(0, len(mine), size)]
        for piece, pixels in decoded_ahead(self.pool, partial(self._look, None), pieces):
            yield piece, self.learner.answer(pixels)

    def _evaluate(self) -> tuple[float, float]:
        """Loss and accuracy on the held-out images."""
        self._agree()
        loss = right = 0.0
        held_out = np.flatnonzero(self.lesson.held_out)
        for numbers, logits in self._answers(held_out):
            targets = torch.from_numpy(self.lesson.targets[numbers])
            its_loss, its_right = held_against(torch.from_numpy(logits).double(), targets)
            loss += its_loss
            right += its_right
        loss, right = self._sum([loss, right])
        return loss / len(held_out), right / len(held_out)

    def _agree(self) -> None:
        """Let all answer with what the first of them has found, which is what is saved."""
        if self.workers > 1:
            for found in self.learner.statistics:
                dist.broadcast(found, 0)

    def _sum(self, values: list[float]) -> list[float]:
        """Over all workers."""
        if self.workers == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def answer(self) -> None:
        """Save what the best weights say of all images."""
        self._sum([0.0])  # the others wait here until the first of them has saved these weights
        self.learner.take_weights(self.saved.best(self.progress))
        found = list(self._answers(np.arange(len(self.lesson.uris))))
        numbers = torch.from_numpy(np.concatenate([one for one, _ in found]))
        logits = torch.from_numpy(np.concatenate([one for _, one in found]))
        self.saved.save_answers(self.rank, numbers, logits)
