"""The settings of a fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.layout import LATEST
from pipeline.contract.spec.inputs import InputFormat, InputSpec
from pipeline.contract.spec.model import Activation
from pipeline.contract.spec.policy import PolicySpec
from pipeline.contract.spec.run import same
from pipeline.contract.spec.settings import (
    About,
    check_no_password,
    check_output,
    check_settings,
    setting,
)
from pipeline.contract.urls import public

Trained = Literal["head", "last", "all"]
Augmentation = Literal["none", "light", "strong"]
ClassWeights = Literal["none", "auto"]
LabelOrigin = Literal["directory"]
_WITHOUT_EFFECT = frozenset({"output", "num_gpus", "num_workers", "discard_open_run"})
"""Fields that the model does not depend on."""
_LATER = frozenset({"class_weights", "ignore", "multi_label", "val_labels", "ema", "mixup"})
"""Fields that earlier versions did not have. Unless they are given, a model has the same name as
before, and an unfinished fine-tuning goes on."""

_EXCLUSIVE = {"label_column": "label_from", "label_from": "multi_label"}
"""The name of a directory is one label."""
DEFAULT_PENALTY = 1.0
"""How strongly the weights of a head are held back; as in ``cvt/training/probes/probe.py``."""
PICTURES = 24
"""How many of each kind the report of a model shows."""
NO_LABELS = (
    "no labels: give <finetune.labels>, <finetune.label_from> directory or "
    "<finetune.label_column>, or correct some images of an output"
)


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """What to learn from which labels."""

    outputs: tuple[str, ...] = field(
        metadata=About(
            "images, as cvt-classify takes them; or an output with embeddings, of cvt-embed or "
            "cvt-classify, of which no image is read",
            metavar="INPUT",
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
        metadata=same(
            "model.source",
            help="the checkpoint to start from; of an output, the one that computed its embeddings",
        )
    )
    activation: Activation | None = field(default=None, metadata=same("model.activation"))
    image_size: int | None = field(default=None, metadata=same("model.image_size"))
    train: Trained = setting(
        "head",
        "what is trained: head, a linear classifier on embeddings; last, also the network's last "
        "stage; all of it. The latter two need images, and start from that classifier",
    )
    labels: tuple[str, ...] = setting(
        (),
        "CSV, JSONL or Parquet file with the columns uri and label, or correct_label (a review "
        "queue with corrections), a corrections.csv, or what Label Studio exports as JSON; may be "
        "repeated, and later files overrule earlier ones",
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
        None,
        "column that holds the labels: of a list, of Parquet files, a tar's cls or json, or of an "
        "output, kept from its input",
        metavar="C",
    )
    multi_label: str | None = setting(
        None,
        "labels are sets, with this between the names: an image may have several labels, or none, "
        "which an empty one says",
        metavar="SEP",
    )
    ignore: tuple[str, ...] = setting(
        (),
        "a label whose images are not trained on, as if they had none; may be repeated",
        metavar="LABEL",
        repeatable=True,
    )
    split_by: str | None = setting(
        None,
        "a column like that: images with the same value are all trained on, or all held out",
        metavar="COLUMN",
    )
    val_share: float = setting(
        0.2, "share of the images that is held out, the same ones in every run", metavar="R"
    )
    val_labels: tuple[str, ...] = setting(
        (),
        "labels of the same form, whose images are held out, and no others; may be repeated",
        metavar="FILE",
        repeatable=True,
    )
    class_weights: ClassWeights = setting(
        "none",
        "what an image counts in training: none, all count alike; auto, all classes do, however "
        "many images they have",
    )
    penalty: float = setting(
        DEFAULT_PENALTY,
        "how strongly the weights are held back (L2): more for few or noisy labels",
        metavar="X",
    )
    champion: str | None = setting(
        None,
        "a model, or MODELS, to compare with on the held-out images; of outputs, one with the same "
        "backbone",
        metavar="SOURCE",
    )
    pictures: int | None = setting(
        None,
        "the most images that each section of the report reads again for its pictures (default: "
        f"{PICTURES}; but of an output without a champion, none that are in a bucket)",
        metavar="N",
        at_least=0,
    )
    fail_if_worse: bool = setting(
        False,
        f"exit with code 3, and leave {LATEST} alone, if the champion is right more often",
    )
    min_accuracy: float = setting(
        0.0, "the same if the accuracy on the held-out images is lower", metavar="A", at_least=0
    )
    max_failure_rate: float = field(
        default=PolicySpec.max_failure_rate,
        metadata=same(
            "policy.max_failure_rate",
            help="the same if a larger share of the labelled images failed",
        ),
    )
    format: InputFormat = field(default=InputSpec.format, metadata=same("inputs.format"))
    exclude: tuple[str, ...] = field(default=(), metadata=same("inputs.exclude"))
    uri_column: str | None = field(default=None, metadata=same("inputs.uri_column"))
    image_column: str | None = field(default=None, metadata=same("inputs.image_column"))
    epochs: int = setting(
        10, "how often every image is seen, with last and all", metavar="N", at_least=1
    )
    learning_rate: float = setting(3e-4, "the highest rate of learning", metavar="X")
    batch_size: int = setting(
        64, "images that a step learns from, over all workers", metavar="N", at_least=1
    )
    layer_decay: float = setting(
        1.0, "what the rate is multiplied by for every layer below the classifier", metavar="X"
    )
    weight_decay: float = setting(
        0.05, "how strongly matrices and kernels are pulled to zero", metavar="X", at_least=0
    )
    augment: Augmentation = setting(
        "light",
        "what an epoch shows of an image: light, a random crop of at least 60 % of it, in half of "
        "the cases mirrored; strong, of at least 8 %; none, what inference sees",
    )
    ema: float = setting(
        0.0,
        "publish an average of the weights, of which so much stays at each step: 0.99, or 0.999 "
        "for thousands of steps; 0, the weights themselves",
        metavar="DECAY",
    )
    mixup: float = setting(
        0.0,
        "blend each image with another, and their labels likewise, in shares of Beta(X, X), often "
        "0.2; 0, learn from images as they are",
        metavar="X",
    )
    patience: int = setting(
        5, "end after so many epochs without a better one", metavar="N", at_least=1
    )
    seed: int = setting(0, "of the order of images and of what is random", metavar="N", at_least=0)
    num_workers: int | None = setting(
        None,
        "processes that train together (default: one for each GPU, on CPUs one with all cores of "
        "a node)",
        metavar="N",
        at_least=1,
    )
    num_gpus: float | None = field(default=None, metadata=same("compute.num_gpus"))
    discard_open_run: bool = field(
        default=False,
        metadata=same(
            "policy.discard_open_run",
            help="throw away what an unfinished fine-tuning has done",
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self, "finetune")
        self._check_names()
        self._check_numbers()
        if not (self.labels or self.label_from or self.label_column or self.corrections):
            raise UsageError(NO_LABELS)
        if self.val_labels and self.val_share != FinetuneSpec.val_share:
            raise UsageError(
                "<finetune.val_labels> excludes <finetune.val_share>; give one of them"
            )
        for other, one in _EXCLUSIVE.items():
            if getattr(self, one) and getattr(self, other):
                raise UsageError(f"<finetune.{one}> excludes <finetune.{other}>; give one of them")
        for name in ("ema", "mixup"):
            if self.train == "head" and getattr(self, name):
                raise UsageError(f"<finetune.{name}> needs <finetune.train> last or all")
        if self.fail_if_worse and self.champion is None:
            raise UsageError("<finetune.fail_if_worse> needs <finetune.champion> to compare with")

    def _check_names(self) -> None:
        if not self.outputs or not all(self.outputs):
            raise UsageError(
                "<finetune.outputs> is empty: name images, or an output with embeddings"
            )
        check_output(self.output)
        if not self.model:
            raise UsageError(
                "<model.source> is empty: name a checkpoint directory, file, URI or hub name"
            )
        for place, files in (("labels", self.labels), ("val_labels", self.val_labels)):
            if not all(files):
                raise UsageError(f"one <finetune.{place}> is empty: name a file")
        if self.multi_label == "":
            raise UsageError("<finetune.multi_label> is empty: give what is between two labels")
        if not all(label.strip() for label in self.ignore):
            raise UsageError("one <finetune.ignore> is empty: name a label")
        for uri in self.outputs:
            check_no_password("finetune.outputs", uri)

    def _check_numbers(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(
                f"<finetune.learning_rate> is {self.learning_rate}; it must be a number above 0"
            )
        if not 0 < self.layer_decay <= 1:
            raise UsageError(
                f"<finetune.layer_decay> is {self.layer_decay}; it must be above 0 and at most 1"
            )
        if not 0 <= self.ema < 1:
            raise UsageError(f"<finetune.ema> is {self.ema}; it must be from 0 to below 1")
        if not 0 <= self.mixup < float("inf"):
            raise UsageError(f"<finetune.mixup> is {self.mixup}; it must be a number from 0 up")
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
            "val_labels": tuple(map(public, self.val_labels)),
            "champion": self.champion and public(self.champion),
        }

    def of_model(self) -> dict[str, Any]:
        """What of ``to_dict`` the model depends on."""
        given = self.to_dict() | {"pictures": PICTURES if self.pictures is None else self.pictures}
        left_out = _WITHOUT_EFFECT | {
            name for name in _LATER if given[name] == getattr(FinetuneSpec, name)
        }
        return {name: value for name, value in given.items() if name not in left_out}
