"""What a model actor is given: the network, the golden batch, and the names of its classes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.network import Form, PackedNetwork
from pipeline.model.self_check import GoldenBatch


@dataclass(frozen=True)
class ModelBundle:
    """A network as plain data. The driver loads it once; Ray's object store shares the arrays
    with every actor of a node, so that no actor downloads weights."""

    network: PackedNetwork
    form: Form
    """The network's form."""
    golden: GoldenBatch
    classes: tuple[str, ...]
    """Names by ``label_id``; empty for a backbone without a head."""

    @property
    def size(self) -> int:
        """Height and width of the pixels that the network takes, S."""
        return int(self.golden.pixels.shape[1])


@dataclass(frozen=True)
class ShadowBundle:
    """A second network, which an actor runs over the pixels of the first one."""

    bundle: ModelBundle
    scores: str
    """Their kind: softmax, sigmoid or logits."""
    key: str
    """What its answers are known by."""
