"""The actors' self-check: what is intact passes, what is not ends the run before it reads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cvt import CvtForImageClassification, CvtImageProcessor
from pipeline.errors import RunError
from pipeline.golden import MAX_DEVIATION, GoldenBatch
from pipeline.infer import DTYPES
from pipeline.run import run
from pipeline.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from tests.support.fault_proxy import FaultProxy
from tests.support.samples import write_checkpoint, write_images
from tests.support.seaweedfs import Bucket


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def load(checkpoint: Path) -> tuple[CvtForImageClassification, CvtImageProcessor]:
    model = CvtForImageClassification.from_pretrained(checkpoint)
    return model, CvtImageProcessor.from_pretrained(checkpoint)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_intact_network_passes_by_far(checkpoint: Path, dtype: str) -> None:
    model, processor = load(checkpoint)
    golden = GoldenBatch.compute(model, processor)
    fast = model.optimize(dtype=DTYPES[dtype])  # type: ignore[index]
    with torch.inference_mode():
        embedding = fast(processor.normalize(golden.pixels).to(DTYPES[dtype])).embedding  # type: ignore[index]
    deviation = golden.deviation(embedding.float().numpy())
    assert deviation < MAX_DEVIATION[dtype] / 3
    golden.check(embedding.float().numpy(), dtype, "here")


@pytest.mark.parametrize("dtype", list(MAX_DEVIATION))
def test_another_weight_file_or_broken_numbers_do_not_pass(
    tmp_path: Path, checkpoint: Path, dtype: str
) -> None:
    model, processor = load(checkpoint)
    golden = GoldenBatch.compute(model, processor)
    other, _ = load(write_checkpoint(tmp_path, seed=1))
    with torch.inference_mode():
        embedding = other(processor.normalize(golden.pixels)).embedding.numpy()
    with pytest.raises(RuntimeError, match=rf"self-check failed on a GPU: .* in {dtype} deviate"):
        golden.check(embedding, dtype, "a GPU")
    with pytest.raises(RuntimeError, match="deviate by inf"):
        golden.check(np.full_like(golden.embedding, np.nan), dtype, "a GPU")


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

    def of_another_model(
        model: CvtForImageClassification, processor: CvtImageProcessor
    ) -> GoldenBatch:
        golden = compute(model, processor)
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
