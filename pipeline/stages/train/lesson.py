"""What the workers of a training need to know; travels to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.contract import layout
from pipeline.model.training.recipes import Recipe, batches
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is learned from which images, and where what is learned is kept."""

    recipe: Recipe
    last_stage: bool
    """Whether the last stage and what follows it are all that learns."""
    patience: int
    """The training ends after so many epochs without a better one."""
    targets: npt.NDArray[np.int64]
    """(R,): the class of each image; of sets of classes (R, N), 1 where one is there."""
    held_out: npt.NDArray[np.bool_]
    """(R,): which images are not learned from."""
    uris: Sequence[str]
    """(R,)."""
    files: Sequence[str]
    """Where their pictures are, below ``images``."""
    models: Store
    run_id: str
    environment: WorkerEnvironment
    save_seconds: float = 60.0
    """What a kill within an epoch costs, at most."""

    @property
    def images(self) -> Store:
        """The output with the rows of the images."""
        return Store(self.models.locate(layout.packed_images(self.run_id)))

    @property
    def trained(self) -> npt.NDArray[np.intp]:
        """The numbers of the images that are learned from."""
        return np.flatnonzero(~self.held_out)

    def pieces(self, epoch: int) -> list[npt.NDArray[np.intp]]:
        """The numbers of the images of each step of an epoch."""
        trained = self.trained
        return [trained[one] for one in batches(len(trained), self.recipe, epoch)]

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.pieces(0))
