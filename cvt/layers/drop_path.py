"""Stochastic depth (arXiv 1603.09382)."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth: drops whole samples of a branch and scales up those that it keeps."""

    part: tuple[int, Tensor] | None = None
    """If the samples are part of a batch: how many that has, and which of them these are. All is
    drawn for the batch, and so for a sample the same, whoever has it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...), with some samples zero in training."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        samples = x.shape[0] if self.part is None else self.part[0]
        mask = x.new_empty(samples, *(1 for _ in x.shape[1:])).bernoulli_(keep)
        if self.part is not None:
            mask = mask[self.part[1]]
        return x * (mask / keep)
