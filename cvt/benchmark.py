"""Speed and drift of every way to run a CvT, side by side in one run.

    python -m cvt.benchmark [--preset cvt-13] [--size 224] [--batch 8] [--rounds 5]

The ways take turns, so that a busy machine disturbs all alike, and each is compared with the first
within the round. Time is the process's CPU time; weights and images are random.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

from cvt.config import PRESETS, CvtConfig
from cvt.model import CvtForImageClassification
from cvt.outputs import CvtOutput

_OPENVINO: Final = find_spec("openvino") is not None

Run = Callable[[Tensor], CvtOutput]


@dataclass(frozen=True)
class Measurement:
    """One way to run the model, against the first."""

    name: str
    images_per_cpu_second: float
    """Median of all rounds."""
    ratio: float
    """Median over the rounds of how many times as fast as the first."""
    logit_drift: float
    """Largest absolute difference of a logit from the first."""
    embedding_cosine: float
    """Smallest cosine between an embedding and that of the first."""


@torch.inference_mode()
def compare(ways: Mapping[str, Run], images: Tensor, rounds: int = 5) -> list[Measurement]:
    """Time ways to run the same model on images (B, 3, H, W), and compare what they return."""
    outputs = {name: run(images) for name, run in ways.items()}  # also compiles and warms up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.process_time()
            run(images)
            seconds[name].append(time.process_time() - started)
    first = next(iter(ways))
    return [
        Measurement(
            name=name,
            images_per_cpu_second=len(images) / statistics.median(seconds[name]),
            ratio=statistics.median(
                a / b for a, b in zip(seconds[first], seconds[name], strict=True)
            ),
            logit_drift=_drift(outputs[name].logits, outputs[first].logits),
            embedding_cosine=_cosine(outputs[name].embedding, outputs[first].embedding),
        )
        for name in ways
    ]


def _drift(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def _cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a.double(), b.double()).min().item()


def ways_to_run(model: CvtForImageClassification) -> dict[str, Run]:
    """The reference, transformers where it is installed, and every runtime in every precision."""
    ways: dict[str, Run] = {}
    if find_spec("transformers") is not None:
        ways["transformers, float32"] = _transformers(model, torch.float32)
        ways["transformers, bfloat16"] = _transformers(model, torch.bfloat16)
    ways["model.py, float32"] = model
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        ways[f"optimized, {name}"] = model.optimize(dtype)
        if _OPENVINO:
            ways[f"openvino, {name}"] = model.optimize(dtype, runtime="openvino")
    return ways


def _transformers(model: CvtForImageClassification, dtype: torch.dtype) -> Run:
    """transformers' classifier with the same weights; its embedding is what enters the head."""
    import transformers

    from cvt.checkpoint import reference_state

    kind: Any = transformers.CvtForImageClassification
    theirs = kind(transformers.CvtConfig.from_dict(model.config.to_dict()))
    theirs.load_state_dict(reference_state(model))
    theirs.eval().to(dtype)
    entered: list[Tensor] = []
    theirs.classifier.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))

    def run(images: Tensor) -> CvtOutput:
        logits = theirs(images.to(dtype)).logits
        return CvtOutput(logits.float(), entered.pop().float())

    return run


def to_markdown(measurements: Sequence[Measurement]) -> str:
    """A table with one row per way."""
    rows = [
        f"| {m.name} | {m.images_per_cpu_second:.1f} | {m.ratio:.2f} | {m.logit_drift:.1e} "
        f"| {m.embedding_cosine:.6f} |"
        for m in measurements
    ]
    head = "| way | images per CPU second | ratio | logit drift | least cosine |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for a preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cvt-13")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = CvtForImageClassification(CvtConfig.from_preset(options.preset)).eval()
    images = torch.randn(options.batch, 3, options.size, options.size)
    table = to_markdown(compare(ways_to_run(model), images, options.rounds))
    print(table)  # noqa: T201, the entry point


if __name__ == "__main__":
    main()
