"""A network for compilers."""

import pytest

from cvt import CvtConfig, CvtForImageClassification
from tests.support.models.oracle import (
    SMALL,
    randomise,
)


@pytest.fixture
def shallow() -> CvtForImageClassification:
    """One block a stage, as compilers take seconds for each."""
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL | {"depth": [1, 1, 1]}))
    randomise(model, seed=0)
    return model.eval()
