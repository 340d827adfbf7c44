"""A model that was trained, or what would be trained, as its caller needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.contract import layout
from pipeline.contract.errors import ExitCode
from pipeline.runs.finetune.labels import examples
from pipeline.runs.finetune.samples import Samples
from pipeline.runs.finetune.split import Division
from pipeline.storage.store import Store

CLASSES_SHOWN = 30


@dataclass(frozen=True)
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
            "labels_without_image": self.samples.unmatched,
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
        lines.append(f"images without a label: {images['unlabelled']}")
        if images["failed"]:
            lines.append(f"labelled images that failed: {images['failed']}")
        if unmatched := self.samples.unmatched:
            lines.append(f"labels without an image: {len(unmatched)}, {examples(unmatched)}")
        return lines


def image_counts(samples: Samples, division: Division) -> dict[str, int]:
    """Images, and labels without one, by what becomes of them."""
    held = int(division.held_out.sum())
    return {
        "labelled": len(samples),
        "train": len(samples) - held,
        "validation": held,
        "failed": samples.failed,
        "unlabelled": samples.unlabelled,
        "labels_without_image": len(samples.unmatched),
    }
