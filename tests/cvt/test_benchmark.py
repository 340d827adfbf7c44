"""The comparison of ways to run a model, on one that takes milliseconds."""

from pathlib import Path

import pytest

from cvt import CvtForImageClassification
from cvt.benchmark import compare, to_markdown, ways_to_run
from tests.oracle import images


def test_every_way_is_timed_and_compared(small_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvt.benchmark._OPENVINO", False)  # seconds to compile, tested elsewhere
    model = CvtForImageClassification.from_pretrained(small_dir)
    measured = {m.name: m for m in compare(ways_to_run(model), images(2, 64, 64), rounds=3)}
    assert list(measured) == [
        "transformers, float32",
        "transformers, bfloat16",
        "model.py, float32",
        "optimized, float32",
        "optimized, bfloat16",
    ]
    first = measured["transformers, float32"]
    assert (first.ratio, first.logit_drift) == (1.0, 0.0)
    for name, m in measured.items():
        assert m.images_per_cpu_second > 0
        assert m.embedding_cosine > 0.999
        assert m.logit_drift < (0.1 if "bfloat16" in name else 1e-4)
    assert to_markdown(list(measured.values())).count("\n") == 6
