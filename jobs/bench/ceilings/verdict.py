"""What stage ceilings say about a whole run: its expected speed, what limits it, what would help.

Pure arithmetic. Where the model computes on the cores that also decode, every image needs both
kinds of core time, so the times add up: 1 / (1 / model + 1 / decode). Where it has GPUs, the stages
run side by side and the slower one decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What each stage reaches alone, with everything that it can use."""

    decode: float
    """Images/s of fetching and decoding on ``decode_cores``."""
    model: float
    """Images/s of the model on its cores or GPUs, given pixels."""
    decode_cores: float
    """CPUs that decode while the model runs; all of them, where both share."""
    decode_cpu: float = 0.0
    """CPU seconds of an image in the decode tasks; it counts where both stages share the cores."""
    model_cpu: float = 0.0
    """CPU seconds of an image in the model's actors, likewise."""
    gpus: float = 0.0
    """GPUs of the model; 0 where it shares the cores with the decoders."""

    @property
    def shared(self) -> bool:
        """Whether both stages compute on the same cores."""
        return self.gpus == 0

    @property
    def expected(self) -> float:
        """Images/s of the whole when nothing is lost between the stages."""
        if self.shared:
            return 1 / (1 / self.model + 1 / self.decode)
        return min(self.model, self.decode)

    def bottleneck(self) -> str:
        """One sentence: what limits the speed, and what would raise it by how much."""
        if self.shared:
            return self._on_cores()
        return self._decode_limits() if self.decode < self.model else self._model_limits()

    def _on_cores(self) -> str:
        total = self.decode_cpu + self.model_cpu
        name, share, lever = "decode", self.decode_cpu / total, ""
        if share < 0.5:
            name, share = "the model", 1 - share
            allowed = f"{self.decode:.0f} images/s that decode allows"
            lever = f", and a GPU would raise it up to the {allowed}"
        return (
            f"{name} limits: {share:.0%} of the {1000 * total:.1f} ms of CPU time per image; "
            f"{_count(self.decode_cores, 'more core')} would double throughput{lever}"
        )

    def _decode_limits(self) -> str:
        start = f"decode limits: {self.decode:.0f} of the {self.model:.0f} images/s of the model; "
        target = min(2 * self.decode, self.model)
        cores = self.decode_cores * (target / self.decode - 1)
        gain = _gain(target / self.decode)
        return f"{start}{_count(cores, 'more core')} would {gain}"

    def _model_limits(self) -> str:
        start = f"the model limits: {self.model:.0f} of the {self.decode:.0f} images/s of decode; "
        target = min(2 * self.model, self.decode)
        gpus = self.gpus * (target / self.model - 1)
        return f"{start}{_count(gpus, 'more GPU')} would {_gain(target / self.model)}"


def _count(number: float, thing: str) -> str:
    whole = max(math.ceil(round(number, 2)), 1)
    return f"{whole} {thing}{'' if whole == 1 else 's'}"


def _gain(ratio: float) -> str:
    if ratio >= 2:
        return "double throughput"
    return f"raise throughput by {ratio - 1:.0%}, until the other stage limits"
