"""Whether the card computes what the reference does: the actor's own device, against float32 on
the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from jobs.bench.gpu.card import ON_GPU
from jobs.bench.synthetic.images import photograph
from jobs.bench.synthetic.models import SMALL_SIZE, write_uneven_model
from pipeline.contract.spec import Dtype, InputSpec, ModelSpec, OutputSpec, Pooling, RunSpec
from pipeline.model.loaded import LoadedModel
from pipeline.model.network import Pixels, Reference
from pipeline.stages.infer.devices import device
from pipeline.stages.infer.settings import InferSettings

COMPILED = {(224, "cls_norm", "float32"), (224, "cls_norm", "bfloat16")}
"""What is also compiled, which takes the most time by far."""
IMAGES = 40
BATCH = 16
"""Not a divisor: the last batch is a part of one."""
MOST_OFF = 1e-4
"""Of a float32 output, relative to the largest."""
LEAST_COSINE = 0.999
"""Of an embedding in less than float32."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One form of the network, held against the reference."""

    dtype: Dtype
    pooling: Pooling
    size: int
    compiled: bool
    worst: float
    """Difference of any output, relative to the largest."""
    cosine: float
    """The least of any embedding."""
    same_labels: float
    """Share of the images with the same best class."""

    @property
    def passed(self) -> bool:
        if self.dtype == "float32":
            return self.worst <= MOST_OFF
        return self.cosine >= LEAST_COSINE


def checks() -> Iterator[Check]:
    """Every dtype and pooling as a CUDA graph, two of them compiled, and larger images."""
    preset = "cvt-13" if ON_GPU else "small"
    small, large = (224, 384) if ON_GPU else (SMALL_SIZE, 2 * SMALL_SIZE)
    dtypes: tuple[Dtype, ...] = get_args(Dtype) if ON_GPU else ("float32",)
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        for size in (small, large):
            source = write_uneven_model(Path(folder, str(size)), preset, size)
            poolings: tuple[Pooling, ...] = get_args(Pooling) if size == small else ("cls_norm",)
            pixels = np.stack([photograph(n, size, size) for n in range(IMAGES)])
            for pooling in poolings:
                expected = _load(source, "float32", pooling).checkpoint.reference(pixels, pooling)
                for dtype, compiled in product(dtypes, (False, True)):
                    if not compiled or (size, pooling, dtype) in COMPILED:
                        yield _check(source, dtype, pooling, compiled, pixels, expected)


def _check(
    source: Path, dtype: Dtype, pooling: Pooling, compiled: bool, pixels: Pixels, ref: Reference
) -> Check:
    model = _load(source, dtype, pooling)
    settings = InferSettings.of(
        model, gpus=float(ON_GPU), calls=2, batch_size=BATCH, compile=compiled
    )
    out = device(model.pack(), settings).run(pixels)
    logits, embedding = torch.from_numpy(ref.logits), torch.from_numpy(ref.embedding)
    pairs = ((out.logits, logits), (out.embedding, embedding))
    cosine = torch.nn.functional.cosine_similarity(out.embedding, embedding)
    return Check(
        dtype=dtype,
        pooling=pooling,
        size=int(pixels.shape[1]),
        compiled=compiled,
        worst=max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs),
        cosine=float(cosine.min()),
        same_labels=float((out.logits.argmax(1) == logits.argmax(1)).float().mean()),
    )


def _load(source: Path, dtype: Dtype, pooling: Pooling) -> LoadedModel:
    return LoadedModel.load(
        RunSpec(
            inputs=InputSpec(uris=("unused",)),
            model=ModelSpec(source=str(source), dtype=dtype),
            output=OutputSpec(uri="unused", embeddings=True, pooling=pooling),
        ),
        dtype,
    )
