"""What a training has reached, in files that are there whole or not at all.

_open/<run_id>/training/step-<step>.pt       where it is; the last two are kept
_open/<run_id>/training/best-<epoch>.pt   the weights of the best epoch
_open/<run_id>/training/answers-<rank>.pt   what they say of every image, by worker
"""

from __future__ import annotations

import io
import logging
import pickle
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipeline.contract import layout
from pipeline.storage.store import Store

KEPT = 2
log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training is."""

    epoch: int = 0
    """The one that is going on."""
    batches: int = 0
    """Of the epoch, that are done."""
    losses: list[float] = field(default_factory=list)
    """Of these."""
    course: list[dict[str, float]] = field(default_factory=list)
    """Of each epoch that is over: loss, and loss and accuracy on the held-out images."""
    best: int | None = None
    """The epoch with the best accuracy; of equally good ones, that with the lowest loss."""
    is_done: bool = False

    def end_epoch(self, loss: float, accuracy: float) -> bool:
        """Close the epoch with what was found on the held-out images; whether it is the best."""
        mean = sum(self.losses) / max(len(self.losses), 1)
        found = {"train_loss": mean, "loss": loss, "accuracy": accuracy}
        self.course.append(found)
        is_best = self.best is None or _order(found) > _order(self.course[self.best])
        if is_best:
            self.best = self.epoch
        self.epoch, self.batches, self.losses = self.epoch + 1, 0, []
        return is_best

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return 0 if self.best is None else self.epoch - 1 - self.best


def _order(found: dict[str, float]) -> tuple[float, float]:
    return found["accuracy"], -found["loss"]


@dataclass(frozen=True)
class Saved:
    """The files of a training."""

    models: Store
    run_id: str

    def save(self, step: int, progress: Progress, learner: dict[str, Any]) -> None:
        """Write where the training is, and forget what is older than the file before."""
        self._write(f"step-{step:09d}.pt", {"progress": asdict(progress), "learner": learner})
        best = None if progress.best is None else _best(progress.best)
        others = (name for name in self._names("best-") if name != best)
        for name in (*self._names("step-")[:-KEPT], *others):
            self.models.remove_file(self._name(name))

    def newest(self) -> tuple[Progress, dict[str, Any]] | None:
        """Where the training was when it was saved last; None before that."""
        for name in reversed(self._names("step-")):
            try:
                found = self._read(name)
            except (pickle.UnpicklingError, RuntimeError, EOFError, FileNotFoundError):
                log.warning("%s cannot be read; going on from the one before", name)
                continue
            return Progress(**found["progress"]), found["learner"]
        return None

    def save_best(self, epoch: int, weights: dict[str, torch.Tensor]) -> None:
        """Keep the weights of an epoch; ``save`` forgets those of others."""
        self._write(_best(epoch), weights)

    def best(self, progress: Progress) -> dict[str, torch.Tensor]:
        """The weights of the best epoch."""
        assert progress.best is not None
        found: dict[str, torch.Tensor] = self._read(_best(progress.best))
        return found

    def save_answers(self, rank: int, numbers: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep what a worker's best weights say of its images."""
        self._write(f"answers-{rank}.pt", {"numbers": numbers, "logits": logits})

    def answers(self, images: int, classes: int, workers: int) -> torch.Tensor:
        """(R, N): the logits of all images."""
        found = torch.full((images, classes), torch.nan)
        for rank in range(workers):
            part = self._read(f"answers-{rank}.pt")
            found[part["numbers"]] = part["logits"]
        return found

    def _names(self, prefix: str) -> list[str]:
        names = (path.rpartition("/")[2] for path in self.models.list(self._name("")))
        return sorted(name for name in names if name.startswith(prefix))

    def _name(self, name: str) -> str:
        return f"{layout.training_dir(self.run_id)}/{name}"

    def _write(self, name: str, value: Any) -> None:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        self.models.write_bytes(self._name(name), buffer.getvalue())

    def _read(self, name: str) -> Any:
        data = io.BytesIO(self.models.read_bytes(self._name(name)))
        return torch.load(data, map_location="cpu", weights_only=True)


def _best(epoch: int) -> str:
    return f"best-{epoch:04d}.pt"
