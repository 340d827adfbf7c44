"""The group of workers that trains a network, as Ray Train starts, watches and restarts it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.model.network import TrainableCheckpoint
from pipeline.stages.nodes import Node
from pipeline.stages.train import stop
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.worker import work

RESTARTS = 3
"""After that many failures of a worker, or of a start, the training ends."""
SAVE_SECONDS = 20.0
"""For saving when the training is interrupted; whoever stops a process may kill it later."""


@dataclass(frozen=True)
class Group:
    """How many workers there are, and what each of them gets."""

    workers: int
    cpus: int
    """Of each: threads that decode and, without a GPU, compute."""
    on_gpus: bool

    @classmethod
    def fit(cls, nodes: Sequence[Node], workers: int | None, num_gpus: float | None) -> Group:
        """As many workers as asked for: on GPUs, by default one for each, else, by default, one
        that has all CPUs of a node.

        Raises:
            UsageError: there is no room for them. Ray would wait for it.
        """
        gpus = sum(int(node.gpus) for node in nodes)
        wanted = gpus if num_gpus is None else int(num_gpus)
        if wanted > gpus:
            raise UsageError(f"<compute.num_gpus> {wanted} is more than the {gpus} that there are")
        number = workers or max(wanted, 1)
        if wanted and number > wanted:
            raise UsageError(
                f"<finetune.num_workers> {number} is more than the {wanted} GPUs, and each needs "
                "one; set <compute.num_gpus> to 0 to train on CPUs"
            )
        most = max((int(node.cpus) for node in nodes), default=0)
        for cpus in range(most, 0, -1):
            places = (_places(node, cpus, on_gpus=wanted > 0) for node in nodes)
            if sum(places) >= number:
                return cls(number, cpus, wanted > 0)
        total = sum(int(node.cpus) for node in nodes)
        raise UsageError(
            f"<finetune.num_workers> {number} need a CPU each, and there are {total}; ask for fewer"
        )


def _places(node: Node, cpus: int, *, on_gpus: bool) -> int:
    """For workers with so many CPUs."""
    places = int(node.cpus) // cpus
    return min(places, int(node.gpus)) if on_gpus else places


def train(lesson: Lesson, checkpoint: TrainableCheckpoint, group: Group) -> None:
    """Train to the end, from wherever it was saved.

    Args:
        checkpoint: with the classifier to begin with.

    Raises:
        RunError: workers failed again and again; the same call goes on from what they saved.
    """
    stop.forget(lesson.run_id)
    with tempfile.TemporaryDirectory() as scratch:
        fitting = _beside(_trainer(lesson, checkpoint, group, scratch).fit)
        with _saving(lesson.run_id, fitting):
            try:
                fitting.result()
            except TrainingFailedError as error:
                raise RunError(
                    f"training stopped: {_cause(error)}; start the same command again to continue"
                ) from error


def _trainer(
    lesson: Lesson, checkpoint: TrainableCheckpoint, group: Group, scratch: str
) -> TorchTrainer:
    resources: dict[str, float] = {"CPU": group.cpus, "GPU": int(group.on_gpus)}
    return TorchTrainer(
        work,
        train_loop_config={"lesson": lesson, "checkpoint": ray.put(checkpoint)},
        scaling_config=ScalingConfig(
            num_workers=group.workers, use_gpu=group.on_gpus, resources_per_worker=resources
        ),
        # Nothing is reported to Ray Train, whose own record of a run is not written atomically.
        run_config=RunConfig(
            name=lesson.run_id,
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=RESTARTS),
        ),
    )


def _beside(function: Callable[[], Any]) -> Future[Any]:
    """Run it in a thread that nobody waits for: there, Ray Train leaves the handlers of signals
    alone."""
    found: Future[Any] = Future()

    def call() -> None:
        try:
            found.set_result(function())
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            found.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return found


@contextmanager
def _saving(run_id: str, fitting: Future[Any]) -> Iterator[None]:
    """Whoever interrupts the training waits until it is saved."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if stop.ask_to_stop(run_id, SAVE_SECONDS):
            interrupt.add_note("the training is saved")
            with suppress(Exception):
                fitting.result(SAVE_SECONDS)
        raise


def _cause(error: TrainingFailedError) -> str:
    """What went wrong in a worker."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        failure = next(iter(error.worker_failures.values()))
        return one_line(getattr(failure, "cause", None) or failure, limit=300)
    return one_line(error, limit=300)
