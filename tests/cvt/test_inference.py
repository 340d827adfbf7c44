"""What `optimize` returns, against transformers in float32."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cvt import CvtForImageClassification
from tests.oracle import Oracle, difference, images


@torch.inference_mode()
def test_float32_is_equal(cvt13: Oracle, cvt13_dir: Path) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir)
    fast = model.optimize()
    x = images(2, 224, 224)
    assert difference(fast(x).logits, cvt13(x).logits) < 1e-4
    assert difference(fast(x).embedding, model(x).embedding) < 1e-4
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fast.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_is_near(cvt13: Oracle, cvt13_dir: Path, dtype: torch.dtype) -> None:
    model = CvtForImageClassification.from_pretrained(cvt13_dir)
    x = images(2, 224, 224)
    out, expected = model.optimize(dtype=dtype)(x), model(x)
    assert out.logits.dtype == out.embedding.dtype == torch.float32
    assert F.cosine_similarity(out.embedding, expected.embedding).min() > 0.999
    assert difference(out.logits, expected.logits) > 1e-5  # the precision did change
