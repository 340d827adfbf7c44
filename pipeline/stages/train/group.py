"""The group of workers that trains a network, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.contract.errors import UsageError
from pipeline.stages.nodes import Node


@dataclass(frozen=True)
class Group:
    """How many workers there are, and what each of them gets."""

    workers: int
    cpus: int
    """Of each: threads that decode and, without a GPU, compute."""
    on_gpus: bool

    @classmethod
    def fit(cls, nodes: Sequence[Node], workers: int | None, num_gpus: float | None) -> Group:
        """As many workers as asked for: on GPUs, by default one for each, else, by default, one
        that has all CPUs of a node.

        Raises:
            UsageError: there is no room for them. Ray would wait for it.
        """
        gpus = sum(int(node.gpus) for node in nodes)
        wanted = gpus if num_gpus is None else int(num_gpus)
        if wanted > gpus:
            raise UsageError(f"<compute.num_gpus> {wanted} is more than the {gpus} that there are")
        number = workers or max(wanted, 1)
        if wanted and number > wanted:
            raise UsageError(
                f"<finetune.num_workers> {number} is more than the {wanted} GPUs, and each needs "
                "one; set <compute.num_gpus> to 0 to train on CPUs"
            )
        most = max((int(node.cpus) for node in nodes), default=0)
        for cpus in range(most, 0, -1):
            group = cls(number, cpus, wanted > 0)
            if group.finds_room(nodes):
                return group
        total = sum(int(node.cpus) for node in nodes)
        raise UsageError(
            f"<finetune.num_workers> {number} need a CPU each, and there are {total}; ask for fewer"
        )

    def check_shares(self, images: int) -> None:
        """Make sure that each worker has one of the images of a step, and none computes for
        nothing.

        Raises:
            UsageError: there are more workers than images.
        """
        if self.workers > images:
            raise UsageError(
                f"{self.workers} workers share the {images} images of a step, and each needs one; "
                f"set <finetune.num_workers> to {images} or less"
            )

    def __str__(self) -> str:
        kind = "a GPU" if self.on_gpus else f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"{self.workers} worker{'s' if self.workers > 1 else ''} with {kind} each"

    def finds_room(self, nodes: Sequence[Node]) -> bool:
        """Whether the nodes hold it."""
        places = (_places(node, self.cpus, on_gpus=self.on_gpus) for node in nodes)
        return sum(places) >= self.workers


def _places(node: Node, cpus: int, *, on_gpus: bool) -> int:
    """For workers with so many CPUs."""
    places = int(node.cpus) // cpus
    return min(places, int(node.gpus)) if on_gpus else places
