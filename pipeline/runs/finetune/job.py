"""A fine-tuning from start to end: labels, images, split, fit, evaluation, model, publication."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

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
from pipeline.runs.finetune.fit import Fitted
from pipeline.runs.finetune.labels import Labels
from pipeline.runs.finetune.result import FinetuneResult, Survey, image_counts
from pipeline.runs.finetune.samples import Samples, gather
from pipeline.runs.finetune.split import Division, kinships
from pipeline.runs.relabel.source import check_embeddings, load_source
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store
from pipeline.storage.uris import join_uri, printable, split_uri

METHOD = 1
"""Counted up when the same labels and settings would give another model."""

log = logging.getLogger(__name__)


def finetune(spec: FinetuneSpec) -> FinetuneResult:
    """Train what is asked for, hold it against held-out images, and publish it.

    The same call finds the model that it has published. If it was interrupted, it begins again,
    and ends in the same model.

    Raises:
        UsageError: nothing was written; the message says what to change.
        RunError: it could not finish; the same call does it again.
    """
    job = _Job.prepare(spec)
    output = Store(join_uri(*split_uri(spec.output)))
    with _storage_errors():
        samples, division = job.divided(vectors=True)
        with Lease(output) as lease:
            return job.run(output, samples, division, lease)


def survey(spec: FinetuneSpec) -> Survey:
    """What ``finetune`` would learn from. Reads no embedding and writes nothing.

    Raises:
        UsageError: as ``finetune`` does.
    """
    job = _Job.prepare(spec)
    with _storage_errors():
        return Survey(*job.divided(vectors=False))


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
    """A fine-tuning whose model and outputs fit together."""

    spec: FinetuneSpec
    source: str
    """The checkpoint that is trained, after ``newest``."""
    parent: TrainableCheckpoint
    champion: Champion | None
    sources: list[History]

    @classmethod
    def prepare(cls, spec: FinetuneSpec) -> _Job:
        sources = [_embedded(uri) for uri in spec.outputs]
        for other in sources[1:]:
            check_identity(
                sources[0].runs[0].identity,
                other.runs[0].identity,
                other.store.uri,
                "fine-tuning needs the embeddings of one model",
            )
        for place in ("label_column", "split_by"):
            _check_kept(sources, place, getattr(spec, place))
        asked = newest(
            ModelSpec(source=spec.model, activation=spec.activation, image_size=spec.image_size)
        )
        parent = load_checkpoint(asked)
        if not isinstance(parent, TrainableCheckpoint):
            raise UsageError("models of the family of <model.source> cannot be trained")
        _check_parent(sources[0], asked.source, parent)
        champion = Champion.load(spec.champion, parent) if spec.champion else None
        return cls(spec, asked.source, parent, champion, sources)

    def divided(self, *, vectors: bool) -> tuple[Samples, Division]:
        """The labelled images, and which of them are held out."""
        spec = self.spec
        labels = Labels.read(spec, [source.store for source in self.sources])
        samples = gather(self.sources, labels, spec.split_by, vectors=vectors)
        keys = kinships(samples.contents, samples.groups or None)
        division = Division.of(samples.labels, keys, spec.val_share)
        if self.champion is not None:
            self.champion.compared(division)
        return samples, division

    def run(
        self, output: Store, samples: Samples, division: Division, lease: Lease
    ) -> FinetuneResult:
        """Train and publish, unless that was done before."""
        run_id = self._run_id(samples)
        is_new = not is_published(output, run_id)
        if is_new:
            metrics = self._train(output, run_id, samples, division, lease)
        else:
            metrics = output.read_json(f"{layout.model_dir(run_id)}/{layout.METRICS}")
        lease.check()
        if metrics["gate"] is None:
            point_to(output, run_id)
        return FinetuneResult(output, run_id, metrics, is_new)

    def _run_id(self, samples: Samples) -> str:
        """A hash of everything that the model and what is said about it depend on."""
        settings = self.spec.to_dict()
        del settings["output"]
        champion = self.champion and self.champion.checkpoint.weights_sha256
        parents = (self.parent.weights_sha256, champion)
        parts = [METHOD, settings, parents, samples.fingerprint, samples.failed]
        return short_hash(json.dumps(parts, sort_keys=True))

    def _train(
        self, output: Store, run_id: str, samples: Samples, division: Division, lease: Lease
    ) -> dict[str, Any]:
        fitted = Fitted.of(samples, division, self.spec.penalty)
        contest = self.champion.meet(fitted) if self.champion else None
        model = self.parent.with_head(fitted.weight, fitted.bias, division.classes)
        metrics = _metrics(fitted, contest)
        metrics["gate"] = self._complaint(metrics, contest)
        lease.check()
        publish_model(
            output, model, fitted, self._training(run_id, samples, model), metrics, contest
        )
        return metrics

    def _training(self, run_id: str, samples: Samples, model: TrainableCheckpoint) -> Training:
        parents = training_of(self.source)
        ancestors = parents.same_backbone if parents is not None else ()
        line = (*ancestors, self.parent.weights_sha256, model.weights_sha256)
        return Training(
            run_id=run_id,
            trained=self.spec.train,
            parent=printable(public(self.source)),
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

    def _complaint(self, metrics: Mapping[str, Any], contest: Contest | None) -> str | None:
        """Why the model must not be the newest one, in one line."""
        spec, images = self.spec, metrics["images"]
        failed = images["failed"] / (images["failed"] + images["labelled"])
        if failed > spec.max_failure_rate:
            return (
                f"{failed:.1%} of the labelled images failed, more than the "
                f"{spec.max_failure_rate:.1%} allowed; {layout.LATEST} was left as it is"
            )
        if metrics["accuracy"] < spec.min_accuracy:
            return (
                f"the accuracy is {metrics['accuracy']:.1%}, less than the "
                f"{spec.min_accuracy:.1%} asked for; {layout.LATEST} was left as it is"
            )
        if spec.fail_if_worse and contest is not None and contest.is_worse:
            return (
                f"the champion is right about {contest.champions_accuracy:.1%} of the held-out "
                f"images, this model about {contest.accuracy:.1%}; {layout.LATEST} was left as it "
                "is"
            )
        return None


def _embedded(uri: str) -> History:
    """An output with embeddings that a classifier takes."""
    try:
        source = load_source(uri, "fine-tuning")
    except UsageError as error:
        raise UsageError(
            f"{error.args[0]}; fine-tuning starts from the embeddings that cvt-classify or "
            "cvt-embed has stored"
        ) from error
    check_embeddings(source, "fine-tuning")
    return source


def _check_kept(sources: list[History], name: str, column: str | None) -> None:
    """Refuse a column that an output does not have, or that a model has written."""
    for source in sources:
        kept = source.runs[0].identity.kept or {}
        if column is not None and column not in kept:
            has = ", ".join(sorted(kept)) or "none"
            raise UsageError(
                f"<finetune.{name}> is {column!r}, which is no column that {source.store.uri} "
                f"carries along from its input; it has {has} (<inputs.keep>)"
            )


def _check_parent(source: History, name: str, parent: TrainableCheckpoint) -> None:
    """Refuse a checkpoint that has not computed the embeddings."""
    run = source.runs[0]
    theirs, run_model = run.identity, run.model.model
    if theirs.weights_sha256 != parent.weights_sha256:
        raise UsageError(
            f"the embeddings of {source.store.uri} are those of {run_model} (weights "
            f"{theirs.weights_sha256[:12]}), not of <model.source> {name} (weights "
            f"{parent.weights_sha256[:12]}); name that one"
        )
    preprocessing = {k: v for k, v in theirs.preprocessing.items() if k != "decode"}
    ours = {"activation": parent.activation, **parent.preprocessing.to_dict()}
    if ours != {"activation": theirs.activation, **preprocessing}:
        raise UsageError(
            f"the embeddings of {source.store.uri} were computed with other settings than those "
            "of <model.source>; give the same <model.activation> and <model.image_size>"
        )


def _metrics(fitted: Fitted, contest: Contest | None) -> dict[str, Any]:
    """The content of metrics.json, but for the gate."""
    division, evaluation = fitted.division, fitted.evaluation
    trained = division.counts(held_out=False)
    columns = (evaluation.precision, evaluation.recall, evaluation.f1, evaluation.support)
    rows = zip(division.classes, *(column.tolist() for column in columns), strict=True)
    cells = zip(*(where.tolist() for where in np.nonzero(evaluation.confusion)), strict=True)
    return {
        "images": image_counts(fitted.samples, division),
        "accuracy": evaluation.accuracy,
        "macro_f1": evaluation.macro_f1,
        "calibration_error": evaluation.calibration_error,
        "label_issues": len(fitted.issues.rows),
        "classes": [
            {"class": name, "precision": p, "recall": r, "f1": f, "support": n}
            | {"train": trained[name]}
            for name, p, r, f, n in rows
        ],
        "confusion": [
            {"label": division.classes[label], "predicted": division.classes[predicted]}
            | {"images": int(evaluation.confusion[label, predicted])}
            for label, predicted in cells
        ],
        "champion": contest and contest.to_dict(),
    }
