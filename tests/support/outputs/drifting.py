"""Seeded scores and embeddings of a model's night, which can be made to drift."""

import numpy as np
import numpy.typing as npt

CLASSES = [f"class {number}" for number in range(8)]
Array = npt.NDArray[np.float32]


def softmax(seed: int, rows: int, *, favour: int | None = None, sure: float = 2.0) -> Array:
    """Scores (rows, 8) of a seeded model; ``favour`` is a class that half of the rows get."""
    rng = np.random.default_rng(seed)
    logits = sure * rng.normal(size=(rows, len(CLASSES)))
    if favour is not None:
        logits[: rows // 2, favour] += 20
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return scores


def vectors(seed: int, rows: int, *, shift: float = 0.0) -> Array:
    """(rows, 16) with means and deviations that differ widely between dimensions."""
    rng = np.random.default_rng(seed)
    scale = np.logspace(-2, 2, 16)
    return (scale * (5 + shift + rng.normal(size=(rows, 16)))).astype(np.float32)
