"""The settings of what works on an output that is there: of a relabelling, of a compaction, and of
what people say of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.spec.output import OutputSpec, Scores, Sink, check_thresholds
from pipeline.contract.spec.run import same
from pipeline.contract.spec.settings import (
    About,
    check_no_password,
    check_output,
    check_settings,
    setting,
)
from pipeline.contract.urls import public

Tool = Literal["label-studio", "fiftyone", "hf"]

_OF_EARLIER_JOBS = About(
    "the output of earlier jobs", metavar="OUT", flag="out", place="output.uri"
).metadata


@dataclass(frozen=True, kw_only=True)
class RelabelSpec:
    """What to do with the labels of an output."""

    source: str = field(
        metadata=About(
            "the output of an earlier job, which stays as it is", metavar="OUT", flag="source"
        ).metadata
    )
    output: str = field(
        metadata=same("output.uri", help="directory or URI of the new table", metavar="NEW_OUT")
    )
    label_map: Mapping[str, str] | None = setting(
        None,
        "old name to new name; the scores of merged classes add up (softmax) or the largest counts "
        "(sigmoid, logits)",
        metavar="FILE.json",
    )
    thresholds: float | dict[str, float] | None = field(
        default=None, metadata=same("output.thresholds")
    )
    head: str | None = setting(
        None,
        "another linear classifier on the stored embeddings: .npz with weight, bias and labels, "
        "or a checkpoint with a classifier",
        metavar="FILE",
    )
    model: str | None = setting(
        None,
        "a model of cvt-finetune, or its MODELS: the rows become those that a run with it would "
        "write, and such a run goes on in NEW_OUT",
        metavar="SOURCE",
    )
    corrections: tuple[str, ...] = setting(
        (),
        "corrections.csv, what Label Studio exports as JSON, or a directory of CSV files as "
        "OUT/corrections: an image's label becomes what people said; may be repeated",
        metavar="FILE",
        repeatable=True,
    )
    scores: Scores | None = field(
        default=None, metadata=same("output.scores", help="what the head's logits become")
    )
    top_k: int | None = field(
        default=None,
        metadata=same("output.top_k", help="how many labels (default: as many as are stored)"),
    )
    full: bool = field(default=False, metadata=same("policy.full"))
    review: int = field(default=OutputSpec.review, metadata=same("output.review"))
    sink: Sink = field(default=OutputSpec.sink, metadata=same("output.sink"))

    def __post_init__(self) -> None:
        check_settings(self, "relabel")
        check_thresholds(self.thresholds)
        asked = (self.label_map, self.thresholds, self.head, self.model, self.top_k)
        if all(value is None for value in asked) and not self.corrections:
            raise UsageError(
                "nothing to do: give <relabel.label_map>, <output.thresholds>, <relabel.head>, "
                "<relabel.model>, <relabel.corrections> or <output.top_k> to relabel with"
            )
        if not all(self.corrections):
            raise UsageError("one <relabel.corrections> is empty: name a file or a directory")
        if self.scores is not None and self.head is None and self.model is None:
            raise UsageError(
                "<output.scores> needs <relabel.head>: stored scores cannot be converted"
            )
        others = [name for name in ("head", "label_map", "corrections") if getattr(self, name)]
        if self.model is not None and others:
            other = others[0]
            raise UsageError(
                f"<relabel.model> excludes <relabel.{other}>: no run would write such rows"
            )
        check_output(self.output)
        check_no_password("relabel.source", self.source)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types, for the manifest: URLs are without credentials."""
        return asdict(self) | {
            "head": self.head and public(self.head),
            "model": self.model and public(self.model),
            "corrections": tuple(map(public, self.corrections)),
        }


@dataclass(frozen=True, kw_only=True)
class CompactSpec:
    """How to combine the runs of an output."""

    output: str = field(metadata=_OF_EARLIER_JOBS)
    drop_vanished: bool = setting(False, "leave out the rows of images that are no longer there")
    keep_days: float | None = setting(
        None,
        "remove the runs that a compaction or a full run replaced more than D days ago "
        "(default: keep them)",
        metavar="D",
        at_least=1,
    )
    """At least a day, for whoever reads them now."""

    def __post_init__(self) -> None:
        check_settings(self, "compact")
        check_output(self.output)


@dataclass(frozen=True, kw_only=True)
class CorrectionsSpec:
    """What to do with corrections: add some, or give the queue to another tool."""

    output: str = field(metadata=_OF_EARLIER_JOBS)
    add: tuple[str, ...] = setting(
        (),
        "corrections.csv of a review page, a CSV with the columns uri and label, or what Label "
        "Studio exports as JSON; may be repeated, and the same file twice is there once",
        metavar="FILE",
        repeatable=True,
    )
    export: Tool | None = setting(
        None, "write the review queue of a run for another tool, with what is corrected already"
    )
    to: str | None = setting(None, "the directory to write it into", metavar="DIR")
    run: str | None = setting(
        None, "the run whose queue it is (default: the newest that has one)", metavar="RUN_ID"
    )

    def __post_init__(self) -> None:
        check_settings(self, "corrections")
        check_output(self.output)
        if not all(self.add):
            raise UsageError("one <corrections.add> is empty: name a file")
        if self.export is not None and self.add:
            raise UsageError("<corrections.add> excludes <corrections.export>; do one at a time")
        if (self.export is None) != (self.to is None):
            raise UsageError(
                "<corrections.export> and <corrections.to> belong together: what for, and where"
            )
        if self.run is not None and self.export is None:
            raise UsageError("<corrections.run> needs <corrections.export>")
