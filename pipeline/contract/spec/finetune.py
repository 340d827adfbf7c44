"""The settings of a fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.layout import LATEST
from pipeline.contract.spec.model import Activation
from pipeline.contract.spec.policy import PolicySpec
from pipeline.contract.spec.run import same
from pipeline.contract.spec.settings import About, check_no_password, check_settings, setting
from pipeline.contract.urls import public

Trained = Literal["head"]
LabelOrigin = Literal["directory"]

DEFAULT_PENALTY = 1.0
"""How strongly the weights of a head are held back; as in ``cvt/training/probe.py``."""
NO_LABELS = (
    "no labels: give <finetune.labels>, <finetune.label_from> directory or "
    "<finetune.label_column>, or correct some images of an output"
)


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """What to learn from which labels."""

    outputs: tuple[str, ...] = field(
        metadata=About(
            "an output with embeddings, of cvt-embed or cvt-classify; no image is read",
            metavar="OUT",
            flag="outputs",
        ).metadata
    )
    output: str = field(
        metadata=same(
            "output.uri",
            help="directory or URI of the models: MODELS/models/<run_id>, and "
            f"MODELS/{LATEST}, which names the newest",
            metavar="MODELS",
        )
    )
    model: str = field(
        metadata=same("model.source", help="the checkpoint that computed the embeddings of OUT")
    )
    activation: Activation | None = field(default=None, metadata=same("model.activation"))
    image_size: int | None = field(default=None, metadata=same("model.image_size"))
    train: Trained = setting(
        "head", "what is trained: head, a linear classifier on the embeddings that OUT stores"
    )
    labels: tuple[str, ...] = setting(
        (),
        "CSV, JSONL or Parquet file with the columns uri and label, or correct_label (a review "
        "queue with corrections), or a corrections.csv; may be repeated, and later files overrule "
        "earlier ones",
        metavar="FILE",
        repeatable=True,
    )
    corrections: bool = setting(
        True,
        "take what people said of the images of OUT, too, which stands in OUT/corrections",
        negatable=True,
    )
    label_from: LabelOrigin | None = setting(
        None, "directory: an image's label is the name of the directory that it is in"
    )
    label_column: str | None = setting(
        None, "column of OUT that holds the labels, kept from its input", metavar="C"
    )
    split_by: str | None = setting(
        None,
        "column of OUT, kept from its input: images with the same value are all trained on, or all "
        "held out",
        metavar="COLUMN",
    )
    val_share: float = setting(
        0.2, "share of the images that is held out, the same ones in every run", metavar="R"
    )
    penalty: float = setting(
        DEFAULT_PENALTY,
        "how strongly the weights are held back (L2): more for few or noisy labels",
        metavar="X",
    )
    champion: str | None = setting(
        None,
        "a model with the same backbone, or MODELS, to compare with on the held-out images",
        metavar="SOURCE",
    )
    fail_if_worse: bool = setting(
        False,
        f"exit with code 3, and leave {LATEST} alone, if the champion is right more often",
    )
    pictures: int = setting(
        24,
        "with a champion, the most images that are read again to show where the two differ",
        metavar="N",
        at_least=0,
    )
    min_accuracy: float = setting(
        0.0, "the same if the accuracy on the held-out images is lower", metavar="A", at_least=0
    )
    max_failure_rate: float = field(
        default=PolicySpec.max_failure_rate,
        metadata=same(
            "policy.max_failure_rate",
            help="the same if a larger share of the labelled images failed in OUT",
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self, "finetune")
        self._check_names()
        self._check_numbers()
        if not (self.labels or self.label_from or self.label_column or self.corrections):
            raise UsageError(NO_LABELS)
        if self.label_from and self.label_column:
            raise UsageError(
                "<finetune.label_from> excludes <finetune.label_column>; give one of them"
            )
        if self.fail_if_worse and self.champion is None:
            raise UsageError("<finetune.fail_if_worse> needs <finetune.champion> to compare with")

    def _check_names(self) -> None:
        if not self.outputs or not all(self.outputs):
            raise UsageError("<finetune.outputs> is empty: name an output with embeddings")
        if not self.output:
            raise UsageError("<output.uri> is empty: name a directory or an fsspec URI")
        if not self.model:
            raise UsageError(
                "<model.source> is empty: name a checkpoint directory, file, URI or hub name"
            )
        if not all(self.labels):
            raise UsageError("one <finetune.labels> is empty: name a file")
        check_no_password("output.uri", self.output)
        for uri in self.outputs:
            check_no_password("finetune.outputs", uri)

    def _check_numbers(self) -> None:
        if not 0 < self.val_share < 1:
            raise UsageError(
                f"<finetune.val_share> is {self.val_share}; it must be above 0 and below 1"
            )
        if not 0 < self.penalty < float("inf"):
            raise UsageError(f"<finetune.penalty> is {self.penalty}; it must be a number above 0")
        for place, share in (
            ("finetune.min_accuracy", self.min_accuracy),
            ("policy.max_failure_rate", self.max_failure_rate),
        ):
            if not 0 <= share <= 1:
                raise UsageError(f"<{place}> is {share}; it must be from 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types, for training.json: URLs are without credentials."""
        return asdict(self) | {
            "outputs": tuple(map(public, self.outputs)),
            "model": public(self.model),
            "labels": tuple(map(public, self.labels)),
            "champion": self.champion and public(self.champion),
        }
