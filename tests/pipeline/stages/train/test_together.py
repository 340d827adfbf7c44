"""Two workers, one of them in another process, whose gradients PyTorch averages, and one alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from cvt.training import learner
from pipeline.stages.train import worker
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.saved import Progress, Saved
from pipeline.stages.train.worker import Worker
from pipeline.storage.store import Store
from tests.support.models.checkpoints import write_checkpoint
from tests.support.outputs.finetuning import RECIPE, beginner, lesson_of

End = tuple[Progress, dict[str, torch.Tensor]]
PATIENCE = timedelta(minutes=5)


def plain_descent(groups: list[dict[str, Any]]) -> SGD:
    """In the place of AdamW, which makes of the smallest gradient a whole step, and so of rounding
    a thousand times as much."""
    return SGD([parameter for group in groups for parameter in group["params"]], lr=0.1)


def learn(rank: int, workers: int, meeting: Path, lesson: Lesson, checkpoint: Path) -> None:
    """A whole training."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(learner, "make_optimizer", plain_descent)
        patch.setattr(worker, "prepare_model", lambda module, **_: DistributedDataParallel(module))
        dist.init_process_group(
            "gloo", f"file://{meeting}", PATIENCE, rank=rank, world_size=workers
        )
        one = Worker(lesson, beginner(checkpoint), pool, rank=rank, workers=workers)
        assert one.learn()
        one.answer()
        dist.destroy_process_group()


@pytest.fixture
def end_of(tmp_path: Path) -> Callable[[int], End]:
    """What a training by so many has saved at its end. A step has eight images, and the last of an
    epoch one."""
    checkpoint = write_checkpoint(tmp_path / "model")  # it drops paths

    def trained(workers: int) -> End:
        models = Store(str(tmp_path / str(workers)))
        lesson = lesson_of(tmp_path / "in", models, recipe=replace(RECIPE, epochs=4))
        lesson = replace(lesson, held_out=np.arange(30) % 6 == 0)
        given = (workers, tmp_path / f"meeting-{workers}", lesson, checkpoint)
        processes = get_context("spawn")
        others = [processes.Process(target=learn, args=(r, *given)) for r in range(1, workers)]
        for other in others:
            other.start()
        learn(0, *given)
        for other in others:
            other.join()
            assert other.exitcode == 0
        found = Saved(models, lesson.run_id).newest()
        assert found is not None
        return found[0], found[1]["model"]

    return trained


@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # of kernels (C, 1, 3, 3)
def test_two_learn_what_one_does(end_of: Callable[[int], End]) -> None:
    (one, weights), (two, theirs) = end_of(1), end_of(2)
    assert one.best == two.best
    for ours, other in zip(one.course, two.course, strict=True):
        assert ours == pytest.approx(other, abs=1e-5)
    assert max(float((weights[name] - theirs[name]).abs().max()) for name in weights) < 1e-6
