"""What a run keeps of its numbers: moments that add up, scores in bins."""

import numpy as np
import pyarrow as pa

from pipeline.monitoring.summary import Moments, count_scores, score_bins
from tests.support.outputs.drifting import vectors


class TestMoments:
    def test_any_split_adds_up_to_the_whole(self) -> None:
        whole = vectors(0, 1000)
        pieces = [Moments.of(piece) for piece in np.split(whole, [1, 10, 700])]
        total = sum(pieces[1:], pieces[0])
        assert total.count == 1000
        np.testing.assert_allclose(total.mean, whole.mean(axis=0, dtype=np.float64))
        np.testing.assert_allclose(total.variance, whole.var(axis=0, dtype=np.float64))

    def test_no_digits_are_lost_beside_a_large_mean(self) -> None:
        values = np.random.default_rng(0).normal(size=(5000, 3)) + 1e8
        total = Moments.of(values[:2000]) + Moments.of(values[2000:])
        np.testing.assert_allclose(total.variance, values.var(axis=0), rtol=1e-6)

    def test_survives_the_manifest(self) -> None:
        before = Moments.of(vectors(0, 300))
        after = Moments.from_record(before.to_record())
        np.testing.assert_allclose(after.mean, before.mean, rtol=1e-6)
        np.testing.assert_allclose(after.variance, before.variance, rtol=1e-6)


def test_scores_are_counted_in_even_bins() -> None:
    scores = [0.0, 0.049, 0.051, 0.5, 0.999, 1.0, 1.0000001]
    names = score_bins()
    expected = {names[0]: 2, names[1]: 1, names[10]: 1, names[19]: 3}
    assert count_scores(pa.chunked_array([pa.array([*scores, None], pa.float32())])) == expected
