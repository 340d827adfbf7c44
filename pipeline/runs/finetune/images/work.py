"""What an unfinished fine-tuning has done, below MODELS/_open/<run_id>."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.contract import layout
from pipeline.contract.errors import UsageError
from pipeline.contract.records import Record
from pipeline.output.staged import withdraw
from pipeline.storage.store import Store


@dataclass(frozen=True)
class OpenTraining(Record):
    """``training.json`` of an unfinished fine-tuning: what defines it."""

    data: str = ""
    """The fingerprint of images and labels."""
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Where a fine-tuning keeps what it has done until its model is published."""

    models: Store
    run_id: str

    @classmethod
    def take_up(
        cls, models: Store, run_id: str, record: OpenTraining, *, discard_others: bool
    ) -> Work:
        """Begin, or go on.

        Raises:
            UsageError: another one is unfinished; the message says how it differs.
        """
        for other in list(models.children(layout.OPEN)):
            found = models.read_record(OpenTraining, _record_of(other))
            if found is not None and discard_others:
                withdraw(cls(models, other).images)
                models.remove(layout.open_dir(other))
            elif found is not None and other != run_id:
                raise UsageError(
                    f"the fine-tuning {other} in {models.uri} is unfinished, and was begun with "
                    f"{_difference(found, record)}; start that command again to continue it, or "
                    "give <policy.discard_open_run>"
                )
        models.write_json(_record_of(run_id), record.to_dict())
        return cls(models, run_id)

    @property
    def images(self) -> Store:
        """Rows of the images that were read."""
        return Store(self.models.locate(layout.packed_images(self.run_id)))

    @property
    def champion(self) -> Store:
        """Rows of a champion that has another backbone."""
        return Store(self.models.locate(layout.champions_answers(self.run_id)))


def _record_of(run_id: str) -> str:
    return f"{layout.open_dir(run_id)}/{layout.TRAINING}"


def _difference(found: OpenTraining, asked: OpenTraining) -> str:
    """In words, for a message."""
    theirs, ours = found.to_dict()["spec"], asked.to_dict()["spec"]
    told = [
        f"{name} {theirs.get(name)!r} instead of {ours.get(name)!r}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if found.data != asked.data:
        told.append("other images or labels")
    return " and ".join(told) or "another model"
