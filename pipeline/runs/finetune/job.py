"""A fine-tuning from start to end: labels, images, split, fit, evaluation, model, publication."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

from pipeline.contract import layout
from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.spec import FinetuneSpec, ModelSpec
from pipeline.contract.urls import public
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.published import Training, newest, training_of
from pipeline.output.identity import check_identity, short_hash
from pipeline.output.lease import Lease
from pipeline.output.ledger.history import History
from pipeline.runs.closing import utc_now, versions
from pipeline.runs.finetune.champion import Champion, Contest
from pipeline.runs.finetune.export import is_published, point_to, publish_model
from pipeline.runs.finetune.fitted.classes import FittedClasses
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.fitted.sets import FittedSets
from pipeline.runs.finetune.images.listed import Listed, holds_images
from pipeline.runs.finetune.images.pack import answers, pack
from pipeline.runs.finetune.images.training import seconds_per_image, trained, trainers
from pipeline.runs.finetune.images.work import OpenTraining, Work
from pipeline.runs.finetune.labelled.kinds import kind_of
from pipeline.runs.finetune.labelled.labels import Labels
from pipeline.runs.finetune.labelled.samples import (
    Samples,
    check_kept,
    check_parent,
    embedded,
    gather,
    is_output,
)
from pipeline.runs.finetune.labelled.split import Division, kinships
from pipeline.runs.finetune.pictures import PageImages
from pipeline.runs.finetune.result import (
    FinetuneResult,
    ImageSurvey,
    Survey,
    complaint,
    metrics_of,
)
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical, printable

METHOD = 1
"""Counted up when the same labels and settings would give another model."""

log = logging.getLogger(__name__)


def finetune(spec: FinetuneSpec) -> FinetuneResult:
    """Train what is asked for, hold it against held-out images, and publish it.

    The same call finds the model that it has published. If it was interrupted, it goes on, and ends
    in the same model.

    Raises:
        UsageError: no model was written; the message says what to change.
        RunError: it could not finish; the same call continues it.
    """
    output = Store(canonical(spec.output))
    with _storage_errors():
        job = _Job.prepare(spec, output)
        if job.listed is not None:
            with Lease(output) as lease:
                return job.run_on_images(output, job.listed, lease)
        samples, division = job.divided(job.sources, vectors=True)
        with Lease(output) as lease:
            learnt = partial(job.head_of, samples, division)
            return job.run(output, job.run_id(samples.fingerprint, samples.failed), learnt, lease)


def survey(spec: FinetuneSpec) -> Survey | ImageSurvey:
    """What ``finetune`` would learn from. Reads no image and no embedding, and writes nothing.

    Raises:
        UsageError: as ``finetune`` does.
    """
    with _storage_errors():
        job = _Job.prepare(spec, Store(canonical(spec.output)))
        if job.listed is not None:
            return job.survey(job.listed)
        return Survey(*job.divided(job.sources, vectors=False))


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except STORAGE_ERRORS as error:
        raise RunError(
            f"fine-tuning stopped: {one_line(error)}; start the same command again"
        ) from error


@dataclass
class _Job:
    """A fine-tuning whose model and images, or outputs, fit together."""

    spec: FinetuneSpec
    model: ModelSpec
    """The checkpoint that is trained, after ``newest``."""
    parent: TrainableCheckpoint
    champion: Champion | None
    labels: Labels
    sources: list[History]
    """Outputs with embeddings, unless images are read."""
    listed: Listed | None
    """The images, if they are read."""

    @classmethod
    def prepare(cls, spec: FinetuneSpec, output: Store) -> _Job:
        sources = [] if reads_images(spec) else _embedded_outputs(spec)
        model = ModelSpec(
            source=spec.model,
            activation=spec.activation,
            image_size=spec.image_size,
            dtype="float32",
        )
        model = newest(model)
        parent = load_checkpoint(model)
        if not isinstance(parent, TrainableCheckpoint):
            raise UsageError("models of the family of <model.source> cannot be trained")
        if sources:
            check_parent(sources[0], model.source, parent)
        champion = None
        if spec.champion:
            kind = kind_of(spec)
            champion = Champion.load(spec.champion, parent, kind, from_images=not sources)
        labels = Labels.read(spec, [source.store for source in sources])
        listed = None if sources else Listed.of(spec, labels, output.uri)
        return cls(spec, model, parent, champion, labels, sources, listed)

    def divided(self, sources: Sequence[History], *, vectors: bool) -> tuple[Samples, Division]:
        """The labelled images, and which of them are held out."""
        spec = self.spec
        seen = self.listed.seen if self.listed else ()
        samples = gather(sources, self.labels, spec.split_by, vectors=vectors, seen=seen)
        if self.listed is not None:
            samples = self.listed.counted(samples)
        keys = kinships(samples.contents, samples.groups or None)
        kind = self.labels.kind
        division = Division.of(samples.labels, keys, spec.val_share, samples.given, kind)
        if self.champion is not None:
            self.champion.compared(division)
        return samples, division

    def run_on_images(self, output: Store, listed: Listed, lease: Lease) -> FinetuneResult:
        """Read the images, train and publish, unless that was done before."""
        data = listed.fingerprint(self.labels)
        run_id = self.run_id(data)

        def begun() -> Work:
            record = OpenTraining(data, self.spec.of_model())
            discard = self.spec.discard_open_run
            return Work.take_up(output, run_id, record, discard_others=discard)

        def learnt() -> Fitted:
            if self.spec.train == "head":
                return self.head_of(*self._read(listed, begun())[1:])
            with trainers(self.spec, output) as group:  # which may find no room
                work = begun()
                packed, samples, division = self._read(listed, work)
                head = self.head_of(samples, division)
                return trained(self.spec, self.parent, packed, head, work, group)

        return self.run(output, run_id, learnt, lease)

    def _read(self, listed: Listed, work: Work) -> tuple[History, Samples, Division]:
        """The images as an output, and as what is learned from."""
        size = self.parent.preprocessing.size
        packed = pack(self.spec, self.model, size, listed.tables, work.images)
        return packed, *self.divided([packed], vectors=True)

    def run(
        self, output: Store, run_id: str, learnt: Callable[[], Fitted], lease: Lease
    ) -> FinetuneResult:
        """Train and publish, unless that was done before."""
        is_new = not is_published(output, run_id)
        if is_new:
            metrics = self._publish(output, run_id, learnt(), lease)
        else:
            metrics = output.read_json(f"{layout.model_dir(run_id)}/{layout.METRICS}")
        lease.check()
        if metrics["gate"] is None:
            point_to(output, run_id)
        return FinetuneResult(output, run_id, metrics, is_new)

    def survey(self, listed: Listed) -> ImageSurvey:
        """What would be read, and how long an epoch would take."""
        if self.spec.train == "head":
            return ImageSurvey(listed)
        return ImageSurvey(listed, seconds_per_image(self.spec, self.parent))

    def run_id(self, *data: object) -> str:
        """A hash of everything that the model and what is said about it depend on."""
        champion = self.champion and self.champion.checkpoint.weights_sha256
        parents = (self.parent.weights_sha256, champion)
        return short_hash(
            json.dumps([METHOD, self.spec.of_model(), parents, *data], sort_keys=True)
        )

    def head_of(self, samples: Samples, division: Division) -> Fitted:
        """What is learned from images that were read."""
        kind = FittedClasses if self.spec.multi_label is None else FittedSets
        balanced = self.spec.class_weights == "auto"
        return kind.of(samples, division, self.spec.penalty, balanced=balanced)

    def _publish(self, output: Store, run_id: str, fitted: Fitted, lease: Lease) -> dict[str, Any]:
        contest = self._contest(Work(output, run_id), fitted)
        model = fitted.model or fitted.on(self.parent)
        metrics = metrics_of(fitted, contest)
        metrics["gate"] = complaint(self.spec, metrics, contest)
        lease.check()
        training = self._training(run_id, fitted.samples, model)
        images = PageImages(self.spec, model.preprocessing, self.sources)
        publish_model(output, model, fitted, training, metrics, images, contest)
        return metrics

    def _contest(self, work: Work, fitted: Fitted) -> Contest | None:
        """The champion against what was learned; one with another backbone reads the images."""
        champion = self.champion
        if champion is None:
            return None
        if champion.has_embeddings or self.listed is None:
            return champion.meet(fitted, champion.answers(fitted))
        uris = compress(fitted.samples.uris, champion.compared(fitted.division))
        model = ModelSpec(source=champion.source, dtype="float32")
        return champion.meet(
            fitted,
            answers(
                self.spec, model, self.listed.tables, uris, work.champion, champion.kind.column
            ),
        )

    def _training(self, run_id: str, samples: Samples, model: TrainableCheckpoint) -> Training:
        line: tuple[str, ...] = (model.weights_sha256,)
        if model.backbone_sha256 == self.parent.backbone_sha256:
            parents = training_of(self.model.source)
            ancestors = parents.same_backbone if parents is not None else ()
            line = (*ancestors, self.parent.weights_sha256, *line)
        return Training(
            run_id=run_id,
            trained=self.spec.train,
            parent=printable(public(self.model.source)),
            parent_weights_sha256=self.parent.weights_sha256,
            weights_sha256=model.weights_sha256,
            backbone_sha256=model.backbone_sha256,
            same_backbone=tuple(dict.fromkeys(line)),
            data=samples.fingerprint,
            images={"labelled": len(samples), "failed": samples.failed},
            spec=self.spec.to_dict(),
            versions=versions(),
            finished=utc_now(),
        )


def reads_images(spec: FinetuneSpec) -> bool:
    """Whether the INPUTs are images, rather than outputs.

    Raises:
        UsageError: they are some of both.
    """
    outputs = [uri for uri in spec.outputs if is_output(uri)]
    if outputs and len(outputs) < len(spec.outputs):
        raise UsageError(
            f"{outputs[0]} is an output, and other INPUTs are not; give images alone, or outputs"
        )
    if outputs and spec.train != "head":
        raise UsageError(
            f"<finetune.train> {spec.train} needs images, and {outputs[0]} is an output, of which "
            "only embeddings are read; name the images"
        )
    return not outputs and holds_images(spec)


def _embedded_outputs(spec: FinetuneSpec) -> list[History]:
    sources = [embedded(uri) for uri in spec.outputs]
    for other in sources[1:]:
        check_identity(
            sources[0].runs[0].identity,
            other.runs[0].identity,
            other.store.uri,
            "fine-tuning needs the embeddings of one model",
        )
    for place in ("label_column", "split_by"):
        check_kept(sources, place, getattr(spec, place))
    return sources
