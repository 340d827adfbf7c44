"""A model that was trained, or what would be trained, as its caller needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.contract import layout
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import FinetuneSpec
from pipeline.contract.urls import public
from pipeline.monitoring.model.metrics import of_sets
from pipeline.monitoring.model.page import render_cell
from pipeline.runs.finetune.champion import Contest
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.images.listed import Listed
from pipeline.runs.finetune.labelled.kinds import Kind, examples
from pipeline.runs.finetune.labelled.samples import Samples
from pipeline.runs.finetune.labelled.split import Division
from pipeline.storage.store import Store

CLASSES_SHOWN = 30
_OF_SETS = ("micro_f1", "mean_average_precision")
"""What metrics.json has only of images that may have several labels."""


@dataclass(frozen=True, repr=False)
class FinetuneResult:
    """A published model."""

    store: Store
    run_id: str
    metrics: Mapping[str, Any]
    """The content of metrics.json."""
    is_new: bool
    """Whether this call has trained it; the same command finds it again."""

    @property
    def complaint(self) -> str | None:
        """Why it is not the newest model, in one line; None if it is."""
        found: str | None = self.metrics["gate"]
        return found

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.TOO_MANY_FAILURES if self.complaint else ExitCode.OK

    @property
    def model_uri(self) -> str:
        return self.store.locate(layout.model_dir(self.run_id))

    @property
    def report_uri(self) -> str:
        return f"{self.model_uri}/{layout.REPORT}"

    def __repr__(self) -> str:
        images = self.metrics["images"]
        return (
            f"<FinetuneResult {self.run_id}: accuracy {self.metrics['accuracy']:.1%} on "
            f"{images['validation']} images held out, of {len(self.metrics['classes'])} classes; "
            f"{public(self.model_uri)}>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: how good it is, the worst classes, and where its report is."""
        places = {"model": public(self.model_uri), "report": public(self.report_uri)}
        return render_cell(self.run_id, self.metrics, places)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for scripts."""
        return {
            "run_id": self.run_id,
            "exit_code": int(self.exit_code),
            "model": self.model_uri,
            "report": self.report_uri,
            "is_new": self.is_new,
            "images": self.metrics["images"],
            "accuracy": self.metrics["accuracy"],
            "macro_f1": self.metrics["macro_f1"],
            **{name: self.metrics[name] for name in _OF_SETS if name in self.metrics},
            "champion": self.metrics["champion"],
            "error": self.complaint,
        }

    def lines(self) -> list[str]:
        """For people."""
        images, champion = self.metrics["images"], self.metrics["champion"]
        lines = [
            f"{images['labelled']} images of {len(self.metrics['classes'])} classes: "
            f"{images['train']} trained on, {images['validation']} held out",
            f"accuracy: {self.metrics['accuracy']:.1%}, macro F1 {self.metrics['macro_f1']:.3f}",
        ]
        if of_sets(self.metrics):
            lines.append(
                "the accuracy is that of all labels of an image together; micro F1 "
                f"{self.metrics['micro_f1']:.3f}, mean average precision "
                f"{self.metrics['mean_average_precision']:.3f}"
            )
        if ignored := images.get("ignored"):
            lines.append(f"ignored: {ignored} images, by their label")
        if champion:
            lines.append(
                f"champion: {champion['accuracy']:.1%}, against "
                f"{champion['challengers_accuracy']:.1%} (p = {champion['p_value']:.2g})"
            )
        if doubts := self.metrics["label_issues"]:
            lines.append(f"in doubt: {doubts} labels, listed in {layout.LABEL_ISSUES}")
        known = "" if self.is_new else " (nothing new: it was there already)"
        return [*lines, f"model:  {self.model_uri}{known}", f"report: {self.report_uri}"]


@dataclass(frozen=True)
class Survey:
    """What ``--dry-run`` says: what would be learned, and from how much."""

    samples: Samples
    division: Division

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for scripts."""
        train, held = (self.division.counts(held_out=side) for side in (False, True))
        return {
            "images": image_counts(self.samples, self.division),
            "classes": {name: {"train": train[name], "validation": held[name]} for name in train},
            "ignored": dict(sorted(self.samples.ignored.items())),
            "labels_without_image": self.samples.unmatched,
            **of_none(self.division.kind, self.samples.labels),
        }

    def lines(self) -> list[str]:
        """For people."""
        found = self.to_dict()
        images, classes = found["images"], found["classes"]
        lines = [
            f"{images['labelled']} images of {len(classes)} classes: {images['train']} to train "
            f"on, {images['validation']} held out",
            *(
                f"{name}: {sides['train']} to train on, {sides['validation']} held out"
                for name, sides in list(classes.items())[:CLASSES_SHOWN]
            ),
        ]
        if len(classes) > CLASSES_SHOWN:
            lines.append(f"and {len(classes) - CLASSES_SHOWN} more classes")
        lines += _none_lines(found)
        lines.append(f"images without a label: {images['unlabelled']}")
        lines += _ignored(self.samples.ignored)
        if images["failed"]:
            lines.append(f"labelled images that failed: {images['failed']}")
        if unmatched := self.samples.unmatched:
            lines.append(f"labels without an image: {len(unmatched)}, {examples(unmatched)}")
        return lines


@dataclass(frozen=True)
class ImageSurvey:
    """What ``--dry-run`` says of images that would be read."""

    listed: Listed
    seconds_per_image: float | None = None
    """Of a training step, if the network would be trained."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for scripts."""
        found = self.listed
        return {
            "images": {
                "labelled": len(found.labels),
                "unlabelled": found.unlabelled,
                "ignored": sum(found.ignored.values()),
                "labels_without_image": len(found.unmatched),
            },
            "shards": found.shards,
            "classes": found.classes,
            "ignored": dict(sorted(found.ignored.items())),
            "labels_without_image": found.unmatched,
            "seconds_per_epoch": self._seconds,
            **of_none(found.kind, found.labels),
        }

    @property
    def _seconds(self) -> float | None:
        """For an epoch over the single images; they are all trained on but for a share."""
        if self.seconds_per_image is None:
            return None
        return round(self.seconds_per_image * len(self.listed.labels), 1)

    def lines(self) -> list[str]:
        """For people."""
        found = self.listed
        classes = list(found.classes.items())
        lines = [f"{len(found.labels)} images of {len(classes)} classes would be read"]
        lines += [f"{name}: {number}" for name, number in classes[:CLASSES_SHOWN]]
        if len(classes) > CLASSES_SHOWN:
            lines.append(f"and {len(classes) - CLASSES_SHOWN} more classes")
        if found.shards:
            lines.append(f"and {found.shards} shards, whose images are counted when they are read")
        if self._seconds is not None:
            lines.append(f"an epoch over them would take at most {self._seconds:.0f} s here")
        lines += _none_lines(self.to_dict())
        lines.append(f"images without a label: {found.unlabelled}")
        lines += _ignored(found.ignored)
        if unmatched := found.unmatched:
            lines.append(f"labels without an image: {len(unmatched)}, {examples(unmatched)}")
        return lines


def of_none(kind: Kind, labels: Sequence[str]) -> dict[str, int]:
    """Images that are labelled with no class, under a name of their own; nothing if an image has to
    have one."""
    if kind.needs_class:
        return {}
    return {"of_no_class": sum(not kind.names(label) for label in labels)}


def _none_lines(found: Mapping[str, Any]) -> list[str]:
    number = found.get("of_no_class")
    return [] if number is None else [f"images labelled with no class: {number}"]


def _ignored(images: Mapping[str, int]) -> list[str]:
    """A line about the labels that are not trained on; one that no image has may be misspelt."""
    told = [f"{label} ({number})" for label, number in sorted(images.items())]
    return [f"ignored labels, and their images: {', '.join(told)}"] if told else []


def image_counts(samples: Samples, division: Division) -> dict[str, int]:
    """Images, and labels without one, by what becomes of them."""
    held = int(division.held_out.sum())
    return {
        "labelled": len(samples),
        "train": len(samples) - held,
        "validation": held,
        "failed": samples.failed,
        "unlabelled": samples.unlabelled,
        "ignored": sum(samples.ignored.values()),
        "labels_without_image": len(samples.unmatched),
    }


def metrics_of(fitted: Fitted, contest: Contest | None) -> dict[str, Any]:
    """The content of metrics.json, but for the gate."""
    return {
        "images": image_counts(fitted.samples, fitted.division),
        **fitted.measures(),
        "champion": contest and contest.to_dict(),
        "epochs": [dict(one) for one in fitted.course],
    }


def complaint(
    spec: FinetuneSpec, metrics: Mapping[str, Any], contest: Contest | None
) -> str | None:
    """Why the model must not be the newest one, in one line."""
    images = metrics["images"]
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
