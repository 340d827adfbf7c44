"""What a label says of an image: its class, or a set of classes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import FinetuneSpec
from pipeline.model.training.heads import Integers, Truths

EXAMPLES = 3


class Kind(Protocol):
    """How labels are read and counted. A label is a text, equal for what means the same."""

    @property
    def needs_class(self) -> bool:
        """Whether each image is of a class, so that a label is what a person says on a review page,
        and not of none."""

    def label(self, value: Any) -> str | None:
        """A cell as a label; None if there is none.

        Raises:
            UsageError: it cannot be one.
        """

    def names(self, label: str) -> tuple[str, ...]:
        """The classes that a label names."""

    def text(self, names: Sequence[str]) -> str:
        """The same as somebody would write them."""

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """All of them, by name.

        Raises:
            UsageError: there are too few to learn from, or too few images of one.
        """

    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> Integers:
        """Labels as numbers, (R,) or (R, N)."""

    def present(self, targets: Integers, classes: int) -> Truths:
        """(R, N): which images have which class."""

    def counts(self, targets: Integers, classes: int) -> Integers:
        """(N,): the images of each class."""

    @property
    def column(self) -> str:
        """Where an output has what a model says of an image: a class, or a list of them."""

    def said(self, logits: npt.NDArray[np.floating]) -> Truths:
        """(R, N): which classes a model names by its logits (R, N)."""

    def comparable(self, targets: Integers, known: Truths) -> Truths:
        """(R,): which images can be held against a model that knows these classes (N,) alone."""


@dataclass(frozen=True)
class OneClass:
    """A ``Kind``: an image is of one class, and ``targets`` are its positions (R,)."""

    needs_class: bool = True
    column: str = "label"

    def label(self, value: Any) -> str | None:
        return as_label(value)

    def names(self, label: str) -> tuple[str, ...]:
        return (label,)

    def text(self, names: Sequence[str]) -> str:
        return names[0]

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        return check_classes(labels)

    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> Integers:
        place = {name: number for number, name in enumerate(classes)}
        return np.array([place[label] for label in labels], np.int64)

    def counts(self, targets: Integers, classes: int) -> Integers:
        return np.bincount(targets, minlength=classes)

    def present(self, targets: Integers, classes: int) -> Truths:
        found = np.zeros((len(targets), classes), bool)
        found[np.arange(len(targets)), targets] = True
        return found

    def said(self, logits: npt.NDArray[np.floating]) -> Truths:
        return self.present(logits.argmax(axis=1), logits.shape[1])

    def comparable(self, targets: Integers, known: Truths) -> Truths:
        return known[targets]


@dataclass(frozen=True)
class SetOfClasses:
    """A ``Kind``: an image is of any number of classes, also of none; ``targets`` are (R, N), 1
    where a class is there, else 0.

    The label of an image of none is the separator alone, for an empty text is no label.
    """

    separator: str
    needs_class: bool = False
    column: str = "labels"

    def label(self, value: Any) -> str | None:
        """Also of a list of names. An empty text is the set of none, and null no label."""
        value = _listed(value)
        if isinstance(value, list):
            return self._of([as_label(one) or "" for one in value])
        if isinstance(value, str):
            return self._of(value.split(self.separator))
        return as_label(value)

    def _of(self, names: Sequence[str]) -> str:
        found = sorted({name.strip() for name in names if name.strip()})
        label = self.separator.join(found) or self.separator
        if self.names(label) != tuple(found):
            raise UsageError(
                f"the labels {one_line(repr(found), 60)} cannot be told apart by "
                f"{self.separator!r}; give <finetune.multi_label> what is in none of them"
            )
        return label

    def names(self, label: str) -> tuple[str, ...]:
        return tuple(name for name in label.split(self.separator) if name)

    def text(self, names: Sequence[str]) -> str:
        return self.separator.join(names)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        count = Counter(chain.from_iterable(map(self.names, labels)))
        if not count:
            raise UsageError(
                f"none of the {len(labels)} labels names a class; it takes one to learn it"
            )
        _check_numbers(count)
        return tuple(sorted(count))

    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> Integers:
        place = {name: number for number, name in enumerate(classes)}
        found = np.zeros((len(labels), len(classes)), np.int64)
        for row, label in enumerate(labels):
            found[row, [place[name] for name in self.names(label)]] = 1
        return found

    def counts(self, targets: Integers, classes: int) -> Integers:
        found: Integers = targets.sum(axis=0)
        return found

    def present(self, targets: Integers, classes: int) -> Truths:
        return targets > 0

    def said(self, logits: npt.NDArray[np.floating]) -> Truths:
        """Those whose sigmoid is at least ``DEFAULT_THRESHOLD``, which is that of the logit 0."""
        found: Truths = logits >= 0
        return found

    def comparable(self, targets: Integers, known: Truths) -> Truths:
        return np.full(len(targets), known.any())


ONE_CLASS = OneClass()


def kind_of(spec: FinetuneSpec) -> Kind:
    """That of the labels that a fine-tuning reads."""
    return ONE_CLASS if spec.multi_label is None else SetOfClasses(spec.multi_label)


def _listed(value: Any) -> Any:
    """A list that arrives as JSON, as all do in a column that has texts as well, else the same."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def as_label(value: Any) -> str | None:
    """A cell as the name of a class; None if it is empty.

    Raises:
        UsageError: it is neither a text nor a whole number.
    """
    if isinstance(value, float):
        if value != value:  # NaN is how pandas leaves a cell of a numeric column empty
            return None
        value = int(value) if value.is_integer() else value
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    if not isinstance(value, int):
        raise UsageError(
            f"a label is {one_line(repr(value), 60)}; it must be a text or a whole number"
        )
    return str(value)


def check_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of labelled images, by name.

    Raises:
        UsageError: there are fewer than two, or one has fewer than two images.
    """
    count = Counter(labels)
    classes = tuple(sorted(count))
    if len(classes) < 2:
        only = f"only {classes[0]}" if classes else "none"
        raise UsageError(f"the labels are of {len(classes)} classes ({only}); it takes two to tell")
    _check_numbers(count)
    return classes


def _check_numbers(count: Counter[str]) -> None:
    if few := sorted(name for name in count if count[name] < 2):
        raise UsageError(
            f"{len(few)} of {len(count)} classes have fewer than 2 labelled images, "
            f"{examples(few)}; label more of them, or leave those classes out"
        )


def examples(texts: Sequence[str]) -> str:
    """A few of them, for a message."""
    shown = ", ".join(one_line(text, 150) for text in texts[:EXAMPLES])
    return f"such as {shown}" if len(texts) > EXAMPLES else f"namely {shown}"
