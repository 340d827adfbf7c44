"""What ``optimize`` returns, against transformers in float32."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cvt import CvtForImageClassification, weights_hash
from cvt.inference.linear import OneDnnLinear
from cvt.inference.network import attention
from tests.support.models.oracle import Oracle, difference, images, relative_difference


@torch.inference_mode()
def test_float32_is_equal(cvt13: Oracle, cvt13_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir)
    before = weights_hash(model)
    fast = model.optimize()
    x = images(2, 224, 224)
    out = fast(x)
    assert difference(out.logits, cvt13(x).logits) < 1e-4
    assert difference(out.embedding, model(x).embedding) < 1e-4
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fast.modules())
    assert weights_hash(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_is_near(cvt13_dir: Path, dtype: torch.dtype) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir)
    x = images(3, 224, 224)
    out, expected = model.optimize(dtype=dtype)(x), model(x)
    assert out.logits.dtype == out.embedding.dtype == torch.float32
    assert F.cosine_similarity(out.embedding, expected.embedding).min() > 0.999
    assert difference(out.logits, expected.logits) > 1e-5  # the precision did change


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("pooling", ["cls_norm", "cls", "mean"])
@torch.inference_mode()
def test_poolings_and_activations_are_equal(small_dir: Path, pooling: str, activation: str) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir, activation=activation)
    x = images(3, 70, 51)
    out = model.optimize(pooling=pooling)(x)
    assert difference(out.logits, model(x).logits) < 1e-4
    assert relative_difference(out.embedding, model.embed(x, pooling=pooling)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_an_empty_batch_has_empty_results(small_dir: Path, dtype: torch.dtype) -> None:
    fast = CvtForImageClassification.from_pretrained(small_dir).optimize(dtype)
    out = fast(images(0, 32, 32))
    assert (out.logits.shape, out.embedding.shape) == ((0, 7), (0, 48))


@pytest.mark.parametrize("batch", [1, 7])
@torch.inference_mode()
def test_bfloat16_attention_in_chunks_is_whole(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against PyTorch's operator in float32, with more scores than one chunk takes."""
    monkeypatch.setattr("cvt.inference.network._CACHED_SCORES", 2 * 3 * 50 * 20)
    tokens = images(batch, 110, 24)  # (B, 3 heads, tokens, C)
    q, k, v = tokens[:, :, :50], tokens[:, :, 50:70], tokens[:, :, 70:90]
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    found = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert relative_difference(found.float(), expected) < 0.03


@torch.inference_mode()
def test_without_onednn_the_ordinary_operators_run(
    small: Oracle, small_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir)
    x = images(2, 64, 64)
    assert any(isinstance(m, OneDnnLinear) for m in model.optimize().modules())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    fast = model.optimize()
    assert not any(isinstance(m, OneDnnLinear) for m in fast.modules())
    assert difference(fast(x).logits, small(x).logits) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@torch.inference_mode()
def test_compiled_is_equal(shallow: CvtForImageClassification) -> None:
    x = images(2, 64, 64)
    assert difference(shallow.optimize(compile=True)(x).logits, shallow(x).logits) < 1e-4


def test_unknown_runtimes_and_dtypes_are_refused(shallow: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match="runtime must be one of torch, openvino"):
        shallow.optimize(runtime="tensorrt")
    with pytest.raises(ValueError, match="OpenVINO computes in float32, bfloat16 or int8"):
        shallow.optimize(dtype=torch.float16, runtime="openvino")
    with pytest.raises(ValueError, match='runtime="openvino" computes on the CPU, not on cuda'):
        shallow.optimize(device="cuda", runtime="openvino")


def test_an_unknown_pooling_is_refused(small_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(small_dir)
    with pytest.raises(ValueError, match="pooling must be one of cls_norm, cls, mean"):
        model.optimize(pooling="max")
