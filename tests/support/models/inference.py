"""The actor without Ray, and transformers' outputs to hold against its own."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from cvt import CvtImageProcessor
from pipeline.contract.schema import DECODED, INTERNAL
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.bundle import ModelBundle
from pipeline.model.loaded import LoadedModel
from pipeline.model.network import Outputs, Pixels
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings
from tests.support.models.oracle import SIZE, Oracle


def load(
    source: Path,
    *,
    dtype: Any = "float32",
    runtime: Any = "torch",
    decode: Any = "fast",
    **output: Any,
) -> LoadedModel:
    values: dict[str, Any] = {"uri": "out", "top_k": 3, "embeddings": True, **output}
    return LoadedModel.load(
        RunSpec(
            inputs=InputSpec(uris=("in",)),
            model=ModelSpec(source=str(source), dtype=dtype, runtime=runtime, decode=decode),
            output=OutputSpec(**values),
        ),
        dtype,
    )


@cache
def loaded(source: Path, pooling: Any, **arithmetic: str) -> LoadedModel:
    return load(source, pooling=pooling, top_k=None, **arithmetic)


def prepare(
    source: Path,
    *,
    dtype: str = "float32",
    runtime: str = "torch",
    decode: str = "fast",
    **output: Any,
) -> LoadedModel:
    """As ``load``, but a checkpoint is read only once."""
    values: dict[str, Any] = {"uri": "out", "top_k": 3, "embeddings": True, **output}
    model = loaded(
        source, values.get("pooling", "cls_norm"), dtype=dtype, runtime=runtime, decode=decode
    )
    return replace(model, output=OutputSpec(**values))


def predictor(model: LoadedModel, bundle: ModelBundle | None = None) -> Predictor:
    settings = InferSettings.of(model, gpus=0, threads=1, batch_size=4)
    return Predictor(bundle or model.pack(), settings)


PIXELS = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)


def batch(images: list[npt.NDArray[np.uint8] | None]) -> pa.Table:
    """DECODED rows; None is an image that failed before."""
    rows: list[dict[str, Any]] = []
    for number, pixels in enumerate(images):
        row: dict[str, Any] = {"uri": f"{number}.jpg", "status": "ok", "_pixels": pixels}
        if pixels is None:
            row |= {"status": "failed", "error_code": "corrupt", "error_message": "why"}
        else:
            row |= {"_pixels": pixels.tobytes(), "width": 3, "sha256": "s"}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=DECODED)


def results(source: Path, images: list[npt.NDArray[np.uint8] | None], **options: Any) -> pa.Table:
    """What the actor makes of the images, checked against the schema that is announced."""
    model = prepare(source, **options)
    table = predictor(model)(batch(images))
    announced = pa.unify_schemas([model.schema, INTERNAL])
    assert {field.name: field.type for field in table.schema} == {
        field.name: field.type for field in announced
    }
    assert [name for name in table.column_names if not name.startswith("_")] == model.schema.names
    assert table["uri"].to_pylist() == [f"{number}.jpg" for number in range(len(images))]
    return table


@torch.no_grad()
def reference(model: Oracle, images: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
    """transformers' own outputs."""
    values = CvtImageProcessor(size=SIZE).normalize(images)
    out = model.cvt(values, output_hidden_states=True)
    return {
        "logits": model(values).logits,
        "cls_norm": model.layernorm(out.cls_token_value).mean(dim=1),
        "cls": out.cls_token_value.squeeze(1),
        "mean": out.hidden_states[1].mean(dim=(2, 3)),
    }


def tensor(column: pa.ChunkedArray) -> Tensor:
    return torch.tensor(column.to_pylist(), dtype=torch.float32)


def disturbed(folder: Path, value: float, **options: Any) -> pa.Table:
    """Three images, of which the second one's embedding has ``value`` in it."""
    model = prepare(folder, **options)
    actor = predictor(model)

    intact = actor.device.run

    def disturbing(pixels: Pixels) -> Outputs:
        out = intact(pixels)
        embedding = out.embedding.clone()
        embedding[1, 3] = value
        return Outputs(out.logits, embedding)

    actor.device = SimpleNamespace(name="disturbed", run=disturbing)
    return actor(batch(list(PIXELS[:3])))
