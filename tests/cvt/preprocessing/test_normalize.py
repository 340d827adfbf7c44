"""Normalisation as a layer: the processor's numbers, to the bit."""

import numpy as np
import pytest
import torch

from cvt import CvtImageProcessor
from cvt.preprocessing.normalize import Normalize

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
PROCESSORS = {
    "published": CvtImageProcessor(size=20),
    "another factor": CvtImageProcessor(size=20, rescale_factor=1 / 127.5),
    "not rescaled": CvtImageProcessor(size=20, do_rescale=False),
    "not normalised": CvtImageProcessor(size=20, do_normalize=False),
    "another mean": CvtImageProcessor(
        size=20,
        image_mean=(0.5, 0.1, 0.2),
        image_std=(0.5, 0.3, 1.0),
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_gives_the_numbers_of_the_processor(name: str, dtype: torch.dtype) -> None:
    processor = PROCESSORS[name]
    found = Normalize(processor, dtype)(torch.from_numpy(PIXELS))
    expected = processor.normalize(PIXELS).to(dtype)
    assert found.dtype == dtype
    assert found.shape == (3, 3, 20, 20)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_it_can_be_traced_as_one_graph() -> None:
    program = torch.export.export(Normalize(PROCESSORS["published"]), (torch.from_numpy(PIXELS),))
    found = program.module()(torch.from_numpy(PIXELS))
    assert torch.equal(found, PROCESSORS["published"].normalize(PIXELS))
