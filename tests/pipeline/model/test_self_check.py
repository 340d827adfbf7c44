"""The actors' self-check: what is intact passes, what is not ends the run before it reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from cvt import CvtForImageClassification, CvtImageProcessor
from pipeline.contract.errors import RunError
from pipeline.contract.spec import Dtype, InputSpec, ModelSpec, OutputSpec, Pooling, RunSpec
from pipeline.model.families.cvt import CvtCheckpoint
from pipeline.model.network import Checkpoint, Form
from pipeline.model.self_check import MAX_DEVIATION, GoldenBatch
from pipeline.runs.run import run
from tests.support.inputs.images import write_images
from tests.support.models import inference
from tests.support.models.checkpoints import write_checkpoint
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import Bucket


def load(checkpoint: Path) -> CvtCheckpoint:
    model = CvtForImageClassification.from_pretrained(checkpoint)
    return CvtCheckpoint(model, CvtImageProcessor.from_pretrained(checkpoint))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pooling", ["cls_norm", "cls", "mean"])
def test_an_intact_network_passes_by_far(checkpoint: Path, dtype: Any, pooling: Any) -> None:
    read = load(checkpoint)
    golden = GoldenBatch.compute(read, pooling)
    form = Form(dtype=dtype, runtime="torch", pooling=pooling)
    network = read.pack(form).build(torch.device("cpu"))
    with torch.inference_mode():
        out = network(golden.pixels)
    found = out.logits.numpy(), out.embedding.numpy()
    assert max(golden.deviations(*found).values()) < MAX_DEVIATION[dtype] / 3
    golden.check(*found, dtype, "here")


@pytest.mark.parametrize("dtype", list(MAX_DEVIATION))
def test_another_weight_file_or_broken_numbers_do_not_pass(
    tmp_path: Path, checkpoint: Path, dtype: Dtype
) -> None:
    golden = GoldenBatch.compute(load(checkpoint), "cls_norm")
    other = load(write_checkpoint(tmp_path, seed=1))
    with torch.inference_mode():
        out = other.model(other.processor.normalize(golden.pixels))
    for name, found in {
        "embeddings": (golden.logits, out.embedding.numpy()),
        "logits": (out.logits.numpy(), golden.embedding),
    }.items():
        with pytest.raises(RuntimeError, match=rf"failed on a GPU: {name} in {dtype} deviate"):
            golden.check(*found, dtype, "a GPU")
    with pytest.raises(RuntimeError, match="deviate by inf"):
        golden.check(golden.logits, np.full_like(golden.embedding, np.nan), dtype, "a GPU")


class Tf32(TorchFunctionMode):
    """Takes from the factors of every product what TF32 has no bits for, as its worst rounding."""

    PRODUCTS = (F.linear, F.conv2d, torch.conv2d, torch.matmul, F.scaled_dot_product_attention)

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in self.PRODUCTS:
            args = [self.cut(x) if isinstance(x, torch.Tensor) and x.dim() > 1 else x for x in args]
        return function(*args, **(kwargs or {}))

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


def test_tf32_passes_by_far(checkpoint: Path) -> None:
    """No CPU has it; what it rounds can be computed."""
    read = load(checkpoint)
    golden = GoldenBatch.compute(read, "cls_norm")
    with torch.inference_mode(), Tf32():
        out = read.model(read.processor.normalize(golden.pixels))
    found = golden.deviations(out.logits.numpy(), out.embedding.numpy())
    assert MAX_DEVIATION["float32"] / 10 < max(found.values()) < MAX_DEVIATION["tf32"] / 3


def test_logits_near_zero_are_no_deviation(checkpoint: Path) -> None:
    """A head whose bias takes the numbers away leaves their rounding alone."""
    read = load(checkpoint)
    logits = GoldenBatch.compute(read, "cls_norm").logits
    with torch.no_grad():
        cast(Any, read.model.head).bias -= torch.from_numpy(logits[0])
    golden = GoldenBatch.compute(read, "cls_norm")
    assert np.abs(golden.logits[0]).max() < 1e-6
    golden.check(golden.logits + 1e-6, golden.embedding, "float32", "here")


@pytest.mark.usefixtures("ray_local")
def test_an_actor_that_computes_something_else_ends_the_run_before_the_bucket_is_touched(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_images(tmp_path / "in", 5)
    s3_bucket.put_tree(tmp_path / "in", "photos/")
    compute = GoldenBatch.compute

    def of_another_model(checkpoint: Checkpoint, pooling: Pooling) -> GoldenBatch:
        golden = compute(checkpoint, pooling)
        return replace(golden, embedding=-golden.embedding)

    monkeypatch.setattr(GoldenBatch, "compute", of_another_model)
    spec = RunSpec(
        inputs=InputSpec(uris=(f"{s3_bucket.uri}/photos",)),
        model=ModelSpec(source=str(checkpoint)),
        output=OutputSpec(uri=str(tmp_path / "out"), embeddings=True),
    )
    with pytest.raises(RunError, match="self-check failed on the CPU") as caught:
        run(spec)
    assert "\n" not in str(caught.value)
    assert fault_proxy.count("GET", path=".*/photos/.+") == 0


def test_the_driver_computes_small_networks_on_one_thread(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that wait for each other on busy cores would take a start's CPU time for it."""
    seen: list[int] = []
    reference = CvtCheckpoint.reference

    def watched(self: CvtCheckpoint, *arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return reference(self, *arguments)

    monkeypatch.setattr(CvtCheckpoint, "reference", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = inference.load(checkpoint)
        model.pack()
        monkeypatch.setattr("pipeline.model.loaded._SMALL", 0)
        model.pack()
        assert seen == [1, 3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
