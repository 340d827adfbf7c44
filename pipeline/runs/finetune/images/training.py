"""Training a network on images that were read: from the head that suits it best, by Ray Train."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.contract import layout
from pipeline.contract.errors import LostNodesError, RunError, UsageError
from pipeline.contract.records import Record
from pipeline.contract.spec import ComputeSpec, FinetuneSpec
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.recipes import LIVE_FROM, Recipe
from pipeline.output.ledger.history import History
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.images.work import Work
from pipeline.stages.cluster.growth import nodes
from pipeline.stages.cluster.places import check_shared
from pipeline.stages.cluster.ray_session import connect, ray_as_found
from pipeline.stages.train.group import Group
from pipeline.stages.train.lesson import Lesson
from pipeline.stages.train.saved import Saved
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.store import Store

log = logging.getLogger(__name__)
_MEASURED = 8
"""Images of the step that says how long an epoch takes."""


@dataclass(frozen=True)
class Begun(Record):
    """``begun.json``: what of a training stays as it was begun, however many workers go on."""

    workers: int = 1
    frozen_statistics: bool = True

    @classmethod
    def of(cls, recipe: Recipe, workers: int, work: Work) -> Begun:
        """As it was begun, or now is."""
        name = layout.training_begun(work.run_id)
        found = work.models.read_record(cls, name)
        if found is None:
            found = cls(workers, recipe.frozen_statistics)
            work.models.write_json(name, found.to_dict())
        elif found.workers != workers:
            log.info("%s", found.told(workers, blends=recipe.mixup > 0))
        return found

    def told(self, workers: int, *, blends: bool) -> str:
        """What it means that so many go on.

        Args:
            blends: whether each worker blends the images of its share.
        """
        what = f"the training was begun with <finetune.num_workers> {self.workers}"
        effect = "which changes rounding alone"
        if blends:
            effect = "which blend other images with each other, so the weights will differ"
        if not self.frozen_statistics:
            effect = "each with statistics of its own for BatchNorm, so the weights will differ"
        return f"{what}, and goes on with {workers}, {effect}"


@contextmanager
def trainers(spec: FinetuneSpec, models: Store) -> Iterator[Group]:
    """The workers that a training will have, on a Ray that is joined or started for it.

    Args:
        models: where they will save; its lease is held.

    Raises:
        UsageError: there is no room for them, nothing to do for one, or one of them would save
            where nobody finds it.
    """
    with ray_as_found():
        connect(ComputeSpec(num_gpus=spec.num_gpus), environments=True)
        check_shared(models)
        group = Group.fit(nodes(), spec.num_workers, spec.num_gpus)
        group.check_shares(spec.batch_size)
        yield group


def recipe_of(spec: FinetuneSpec, workers: int = 1) -> Recipe:
    """How the network is taught, by so many workers."""
    return Recipe(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        layer_decay=spec.layer_decay,
        weight_decay=spec.weight_decay,
        augment=spec.augment,
        ema=spec.ema,
        mixup=spec.mixup,
        frozen_statistics=spec.batch_size < LIVE_FROM * workers,
        seed=spec.seed,
    )


def trained(
    spec: FinetuneSpec,
    parent: TrainableCheckpoint,
    packed: History,
    start: Fitted,
    work: Work,
    group: Group,
) -> Fitted:
    """Train from ``start``, the head that fits the embeddings of ``parent``.

    Raises:
        RunError: it could not finish; the same call goes on from what was saved.
        UsageError: there are fewer images than workers.
    """
    from pipeline.stages.train.supervision import train  # the import takes a second

    model = start.on(parent)
    begun = Begun.of(recipe_of(spec, group.workers), group.workers, work)
    while True:
        try:
            train(_lesson(spec, packed, start, work, begun, group), model, group)
        except LostNodesError as error:
            group = _smaller(spec, group)
            log.warning("%s; going on with %s", error, group)
            if group.workers != begun.workers:
                log.info("%s", begun.told(group.workers, blends=spec.mixup > 0))
        else:
            return _learnt(start, model, Saved(work.models, work.run_id), group.workers)


def _smaller(spec: FinetuneSpec, lost: Group) -> Group:
    """A group for the nodes that are left; on GPUs if the lost one was, for hours would become
    days."""
    try:
        group = Group.fit(nodes(), spec.num_workers, spec.num_gpus)
    except UsageError as error:
        raise RunError(
            f"nodes were lost, and what is left is not enough: {error.args[0]}"
        ) from error
    if lost.on_gpus and not group.on_gpus:
        raise RunError(
            "nodes were lost, and what is left has no GPU; start the same command again once there "
            "is one, or now to go on with CPUs"
        )
    return group


def _lesson(
    spec: FinetuneSpec, packed: History, start: Fitted, work: Work, begun: Begun, group: Group
) -> Lesson:
    division = start.division
    recipe = replace(recipe_of(spec), frozen_statistics=begun.frozen_statistics)
    if spec.class_weights == "auto":
        recipe = start.balanced(recipe)
    group.check_shares(int((~division.held_out).sum()))
    return Lesson(
        recipe=recipe,
        last_stage=spec.train == "last",
        patience=spec.patience,
        targets=division.targets,
        held_out=division.held_out,
        uris=start.samples.uris,
        files=packed.files,
        models=work.models,
        run_id=work.run_id,
        environment=WorkerEnvironment.capture(),
    )


def _learnt(start: Fitted, model: TrainableCheckpoint, saved: Saved, workers: int) -> Fitted:
    """What the best epoch has, in the place of the head alone."""
    found = saved.newest()
    if found is None:
        raise RunError("the training has saved nothing; start the same command again")
    progress, _ = found
    model = model.with_weights(saved.best(progress))
    logits = saved.answers(len(start.samples), len(start.division.classes), workers)
    if not logits.isfinite().all():
        raise RunError("the network answers with NaN or infinity; lower <finetune.learning_rate>")
    weight, bias = model.head
    return replace(
        start,
        weight=weight,
        bias=bias,
        probabilities=start.as_probabilities(logits.double()),
        model=model,
        course=tuple(progress.course),
    )


def seconds_per_image(spec: FinetuneSpec, parent: TrainableCheckpoint) -> float:
    """How long a step takes here for each image, measured once. Decoding goes on meanwhile."""
    on_gpu = torch.cuda.is_available() and spec.num_gpus != 0
    device = torch.device("cuda" if on_gpu else "cpu")
    model = parent.with_head(
        np.zeros((2, parent.embedding_width("cls_norm")), np.float32),
        np.zeros(2, np.float32),
        ("one", "other"),
    )
    learner = model.learner(recipe_of(spec), 2, device, last_stage=spec.train == "last")
    size = parent.preprocessing.size
    pixels = np.zeros((_MEASURED, size, size, 3), np.uint8)
    targets = np.arange(_MEASURED) % 2
    learner.step(pixels, targets)  # the first one allocates
    started = time.perf_counter()
    learner.step(pixels, targets)
    return (time.perf_counter() - started) / _MEASURED
