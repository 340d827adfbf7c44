"""Making and changing a configuration as transformers' users do."""

import dataclasses
import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeAlias, cast

from cvt.errors import ConfigError
from cvt.interface.fields import class_names, read_object
from cvt.interface.sources import Source, display, open_source

Id2Label: TypeAlias = Mapping[Any, str] | Sequence[str]
Label2Id: TypeAlias = Mapping[str, Any]
CONFIG_NAME: Final = "config.json"
_LABELS: Final = frozenset({"num_labels", "id2label", "label2id"})


class AsConfig:
    """The constructor and the attributes of a dataclass that has ``labels`` among its fields.

    It takes transformers' names as well. A field that is set later is checked with the others, as
    at the beginning.
    """

    model_type: ClassVar[str] = "cvt"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["embedding"]
    """Outputs that are no predictions to transformers' Trainer."""
    labels: tuple[str, ...]
    activation: str | None

    def __init__(
        self,
        *,
        num_labels: int | None = None,
        id2label: Id2Label | None = None,
        label2id: Label2Id | None = None,
        **fields: Any,
    ) -> None:
        """Take fields by name, lists for tuples too, and the labels in any of four spellings."""
        if "hidden_act" in fields:
            fields.setdefault("activation", fields.pop("hidden_act"))
        fields.pop("layer_norm_eps", None)  # in transformers' signature, though it is never read
        if (unknown := min(fields.keys() - self._defaults().keys(), default=None)) is not None:
            hint = self._hint(unknown) or "; from_dict takes a whole config.json"
            raise TypeError(f"{type(self).__name__} has no field {unknown!r}{hint}")
        labels = _spelled(num_labels, id2label, label2id)
        if labels is not None and fields.setdefault("labels", labels) not in (labels, [*labels]):
            raise ConfigError("labels must not contradict num_labels, id2label or label2id")
        vars(self).update(self._defaults() | fields)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Check every field, and bring it into its final form."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a config.json describes."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""

    @classmethod
    def from_pretrained(
        cls, source: Source, *, revision: str | None = None, **changes: Any
    ) -> Self:
        """Read a checkpoint's config.json, and change fields of it.

        Args:
            source: A directory, the file itself or one beside it, any of them behind an fsspec URI,
                or a hub name.
            revision: Branch, tag or commit of a hub name.
            changes: Fields, as for the constructor.

        Raises:
            CheckpointError: the source cannot be read.
            ConfigError: there is no config.json, or it does not describe a CvT.
        """
        with open_source(source, revision) as (fetch, file):
            path = fetch(file if file and file.endswith(".json") else CONFIG_NAME)
            if path is None:
                raise ConfigError(f"{display(source)} has no {CONFIG_NAME}")
            return cls.from_dict(read_object(path)).changed(**changes)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json into ``directory``, which is created if needed."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        Path(directory, CONFIG_NAME).write_text(json.dumps(self.to_dict(), indent=2))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, or keep what others attach to a configuration; that is never saved."""
        if name in self._defaults():
            value = getattr(self.changed(**{name: value}), name)
        elif not hasattr(type(self), name) and (hint := self._hint(name)):
            raise AttributeError(f"{type(self).__name__} has no field {name!r}{hint}")
        object.__setattr__(self, name, value)

    def changed(self, **changes: Any) -> Self:
        """A copy with other fields, which are named and checked as for a new configuration."""
        replaced = {"labels"} if changes.keys() & _LABELS else set()
        replaced |= {"activation"} if "hidden_act" in changes else set()
        kept = {name: getattr(self, name) for name in self._defaults().keys() - replaced}
        return type(self)(**kept | changes)

    @property
    def num_labels(self) -> int:
        """How many classes the head distinguishes; 0 means that there is no head."""
        return len(self.labels)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if count != self.num_labels:
            self.labels = self.changed(num_labels=count).labels

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by the index of their logit."""
        return dict(enumerate(self.labels))

    @id2label.setter
    def id2label(self, names: Id2Label) -> None:
        self.labels = self.changed(id2label=names).labels

    @property
    def label2id(self) -> dict[str, int]:
        """Indices of the logits by class name."""
        return {label: i for i, label in enumerate(self.labels)}

    @label2id.setter
    def label2id(self, numbers: Label2Id) -> None:
        if numbers != self.label2id:
            self.labels = self.changed(label2id=numbers).labels

    @property
    def hidden_act(self) -> str | None:
        """``activation``, under its name in config.json."""
        return self.activation

    @hidden_act.setter
    def hidden_act(self, name: str | None) -> None:
        self.activation = name

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return {field.name: field.default for field in dataclasses.fields(cast(Any, cls))}

    def _hint(self, name: str) -> str:
        near = get_close_matches(name, self._defaults(), n=1, cutoff=0.8)
        return f": did you mean {near[0]}?" if near else ""


def _spelled(
    num_labels: int | None, id2label: Id2Label | None, label2id: Label2Id | None
) -> tuple[str, ...] | None:
    """Class names in the order of the logits; None if nothing says any."""
    if num_labels is None and id2label is None and label2id is None:
        return None
    if id2label is None and label2id is not None:
        id2label = {number: name for name, number in label2id.items()}
    names = class_names({"id2label": id2label, "num_labels": num_labels})
    if num_labels not in (None, len(names)):
        raise ConfigError(f"num_labels is {num_labels}, but {len(names)} labels have names")
    by_number = {str(number): name for number, name in enumerate(names)}
    for name, number in (label2id or {}).items():
        if by_number.get(str(number)) != name:
            raise ConfigError(f"label2id says that {name!r} is class {number}, which it is not")
    return names
