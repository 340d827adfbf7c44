"""A training as Ray Train starts, watches and restarts it.

To be imported where a network is trained: Ray Train takes a second, and talks in notebooks.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from pipeline.contract.errors import LostNodesError, RunError, one_line
from pipeline.model.network import TrainableCheckpoint
from pipeline.stages.cluster.growth import nodes
from pipeline.stages.train.group import Group
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.talk import stop
from pipeline.stages.train.talk.whereabouts import Whereabouts
from pipeline.stages.train.talk.wires import RaysNetwork
from pipeline.stages.train.worker import work

log = logging.getLogger(__name__)
RESTARTS = 3
"""After that many failures of a worker, or of a start, the training ends."""
SAVE_SECONDS = 20.0
"""For saving when the training is interrupted; whoever stops a process may kill it later."""
_POLL_SECONDS = 1.0


def train(lesson: Lesson, checkpoint: TrainableCheckpoint, group: Group) -> None:
    """Train to the end, from wherever it was saved.

    Args:
        checkpoint: with the classifier to begin with.

    Raises:
        LostNodesError: the nodes that are left do not hold the group.
        RunError: workers failed again and again; the same call goes on from what they saved.
    """
    stop.forget(lesson.run_id)
    steps = lesson.recipe.epochs * lesson.steps
    whereabouts = Whereabouts(lesson.run_id, group.workers, steps)
    with tempfile.TemporaryDirectory() as scratch:
        fitting = _beside(_trainer(lesson, checkpoint, group, scratch).fit)
        with _saving(lesson.run_id, fitting):
            try:
                _watch(fitting, whereabouts)
            except TrainingFailedError as error:
                if not group.finds_room(nodes()):
                    raise LostNodesError(
                        f"nodes were lost: those that are left do not hold {group}"
                    ) from error
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
        torch_config=RaysNetwork(),
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


def _watch(fitting: Future[Any], whereabouts: Whereabouts) -> None:
    """Log where the training goes on, until it ends. It does not end because nobody can say so."""
    while not fitting.done():
        wait([fitting], _POLL_SECONDS)
        try:
            news = whereabouts.news()
        except (RayError, RuntimeError) as error:  # the head of the cluster is away for a while
            log.debug("cannot ask where the training goes on: %s", one_line(error))
            continue
        if news is not None:
            log.info("%s", news)
    fitting.result()


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
    """What went wrong in a worker, or when they were started."""
    failure: Exception
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        return one_line(getattr(failure, "cause", None) or failure, limit=300)
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        failure = next(iter(error.worker_failures.values()))
        return one_line(getattr(failure, "cause", None) or failure, limit=300)
    return one_line(error, limit=300)
