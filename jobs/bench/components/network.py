"""Speed and drift of every way to run a CvT, side by side in one run.

    OMP_NUM_THREADS=1 python -m jobs.bench network [--model SOURCE] [--only REGEX]

Ways whose packages are not installed are left out. They take turns, so that a busy machine disturbs
all alike, and each is compared with the first within the round. Time is the process's CPU time,
which counts waiting threads too: compare only runs with the same number of threads. Images are
random, and so are the weights unless --model names some. Below the table is the speed that no way
can exceed: that of a network made of nothing but large matrix products.
"""

import argparse
import json
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvt.config import CvtConfig
from cvt.inference.network import InferenceCvt, fold_batch_norm
from cvt.interface.outputs import CvtOutput
from cvt.model import CvtForImageClassification

_PACKAGES: Final = ("torch", "transformers", "onnxruntime", "openvino", "nncf")

_PRODUCT_SIDE: Final = 2048

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Run = Callable[[Tensor], CvtOutput]
Build = Callable[[], Run]


@dataclass(frozen=True)
class Measurement:
    """One way to run the model, against the first."""

    name: str
    images_per_cpu_second: float
    """Median of all rounds."""
    ratio: float
    """How many times as fast as the first; median over the rounds."""
    logit_drift: float
    """Largest absolute difference of a logit from the first."""
    embedding_cosine: float
    """Smallest cosine between an embedding and that of the first."""
    agreement: float
    """Share of the images whose best class is the same as with the first."""


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
            name,
            len(images) / statistics.median(seconds[name]),
            statistics.median(a / b for a, b in zip(seconds[first], seconds[name], strict=True)),
            *_drift(outputs[name], outputs[first]),
        )
        for name in ways
    ]


def _drift(out: CvtOutput, reference: CvtOutput) -> tuple[float, float, float]:
    """Largest difference of a logit, smallest cosine of an embedding, share of equal classes."""
    logits, expected = out.logits.float(), reference.logits.float()
    cosine = F.cosine_similarity(out.embedding.double(), reference.embedding.double())
    same = logits.argmax(dim=1) == expected.argmax(dim=1)
    return (logits - expected).abs().max().item(), cosine.min().item(), same.float().mean().item()


@torch.inference_mode()
def ceilings(model: CvtForImageClassification, image: Tensor, rounds: int = 5) -> dict[str, float]:
    """Images per CPU second, by dtype, if the network were nothing but large matrix products.

    Its operations are counted on one image (1, 3, H, W), a multiply-add as two.
    """
    with FlopCounterMode(display=False) as counter:
        model(image)
    found = {}
    for name, dtype in DTYPES.items():
        a, b = torch.rand(2, _PRODUCT_SIDE, _PRODUCT_SIDE).to(dtype)
        seconds = []
        for _ in range(1 + rounds):
            started = time.process_time()
            torch.mm(a, b)
            seconds.append(time.process_time() - started)
        found[name] = 2 * _PRODUCT_SIDE**3 / min(seconds) / counter.get_total_flops()
    return found


def ways_to_run(
    model: CvtForImageClassification,
    images: Tensor,
    calibration: Tensor,
    *,
    compile: bool = False,
) -> dict[str, Build]:
    """A builder for each way that is installed, by name: transformers' first, then ours.

    Args:
        model: In float32; every way uses its weights.
        images: In the shape that graphs are made for.
        calibration: Images for int8.
        compile: Add torch.compile of transformers' model, which takes minutes.
    """
    theirs = _ways_of_transformers(model, images, compile) if _installed("transformers") else {}
    return theirs | _ways_of_ours(model, calibration)


def _ways_of_transformers(
    model: CvtForImageClassification, images: Tensor, compile: bool
) -> dict[str, Build]:
    from cvt.inference.openvino import OpenVinoCvt
    from jobs.bench.components.network_peers import TransformersCvt, onnxruntime_of

    theirs = TransformersCvt(model)
    ways: dict[str, Build] = {}
    for name, dtype in DTYPES.items():
        eager = partial(TransformersCvt(model).to, dtype)
        ways[f"transformers, {name}"] = eager
        if compile:
            ways[f"transformers, compiled, {name}"] = partial(_compiled, eager)
        if _installed("openvino"):
            ways[f"transformers, openvino, {name}"] = partial(OpenVinoCvt, theirs, dtype)
    if _installed("onnxruntime", "onnxscript"):
        ways["transformers, onnxruntime, float32"] = partial(onnxruntime_of, theirs, images)
    return ways


def _compiled(build: Callable[[], nn.Module]) -> Run:
    network = build()
    network.compile()
    return network


def _ways_of_ours(model: CvtForImageClassification, calibration: Tensor) -> dict[str, Build]:
    ways: dict[str, Build] = {  # each a step further than the one before
        "model.py, float32": lambda: model,
        "BatchNorm folded, float32": partial(fold_batch_norm, model),
        "InferenceCvt, float32": partial(InferenceCvt, model),
    }
    in_openvino = partial(model.optimize, runtime="openvino")
    for name, dtype in DTYPES.items():
        ways[f"optimized, {name}"] = partial(model.optimize, dtype)
        if _installed("openvino"):
            ways[f"optimized, openvino, {name}"] = partial(in_openvino, dtype)
    if _installed("openvino", "nncf"):
        int8 = partial(in_openvino, torch.int8, calibration=calibration)
        ways["optimized, openvino, int8"] = int8
    return ways


def _installed(*packages: str) -> bool:
    return all(find_spec(package) is not None for package in packages)


def choose(ways: Mapping[str, Build], pattern: str = "") -> dict[str, Run]:
    """Build the first way, which all are measured by, and those whose name matches the pattern."""
    chosen = [name for i, name in enumerate(ways) if not i or re.search(pattern, name)]
    return {name: ways[name]() for name in chosen}


def to_markdown(measurements: Sequence[Measurement]) -> str:
    """A table with one row per way."""
    width = max(len(m.name) for m in measurements)
    rows = [
        f"| {m.name:{width}} | {m.images_per_cpu_second:20.1f} | {m.ratio:5.2f} "
        f"| {m.logit_drift:11.1e} | {m.embedding_cosine:12.6f} | {m.agreement:9.1%} |"
        for m in measurements
    ]
    columns = {"images / CPU second": 20, "ratio": 5, "logit drift": 11}
    columns |= {"least cosine": 12, "agreement": 9}
    head = "|".join(["", f" {'way':{width}} ", *(f" {c:>{n}} " for c, n in columns.items()), ""])
    line = "|".join(["", "-" * (width + 2), *("-" * (n + 1) + ":" for n in columns.values()), ""])
    return "\n".join([head, line, *rows])


def to_json(
    measurements: Sequence[Measurement], most: Mapping[str, float], options: argparse.Namespace
) -> str:
    """Everything needed to compare a later run with this one."""
    report: dict[str, Any] = {
        "options": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in _PACKAGES if _installed(name)},
        "ways": [asdict(m) for m in measurements],
        "ceilings": dict(most),
    }
    return json.dumps(report, indent=2)


def bench_network(options: argparse.Namespace) -> None:
    """Print the table; ``options`` are those of the subcommand."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.model:
        model = CvtForImageClassification.from_pretrained(options.model)
    else:
        model = CvtForImageClassification(CvtConfig.from_preset(options.preset)).eval()
    size = options.size or model.config.image_size or 224
    images = torch.randn(5 * options.batch, model.config.num_channels, size, size)
    images, calibration = images[: options.batch], images[options.batch :]
    ways = ways_to_run(model, images, calibration, compile=options.compile)
    measurements = compare(choose(ways, options.only), images, options.rounds)
    most = ceilings(model, images[:1], options.rounds)
    bounds = ", ".join(f"{bound:.1f} in {name}" for name, bound in most.items())
    print(to_markdown(measurements))
    print(f"matrix products alone: {bounds}")
    if options.json:
        options.json.write_text(to_json(measurements, most, options))
