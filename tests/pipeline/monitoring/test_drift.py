"""Statistics of drift: against formulas and simulation."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract.manifest import Change
from pipeline.monitoring import drift
from pipeline.monitoring.drift import compare
from pipeline.monitoring.summary import Moments, Summary, count_scores
from tests.support.outputs.drifting import CLASSES, Array, softmax, vectors


def summary(scores: Array, embeddings: Array | None = None, failed: int = 0) -> Summary:
    names = [CLASSES[i] for i in scores.argmax(axis=1)]
    return Summary(
        ok=len(scores),
        labels=Counter(names),
        failures=Counter({"timeout": failed} if failed else {}),
        scores=count_scores(pa.chunked_array([scores.max(axis=1)])),
        embedding=None if embeddings is None else Moments.of(embeddings),
    )


def by_name(changes: list[Change]) -> dict[str, Change]:
    return {c.what: c for c in changes if c.label is None}


class TestStatistics:
    def test_stability_index_is_jeffreys_divergence(self) -> None:
        before, now = np.array([400, 300, 200, 100]), np.array([100, 100, 100, 100])
        p, q = (before + 0.5) / 1002, (now + 0.5) / 402
        kl = [float((a * np.log(a / b)).sum()) for a, b in ((p, q), (q, p))]
        assert drift.stability_terms(before, now).sum() == pytest.approx(sum(kl))

    @pytest.mark.parametrize(
        ("degrees", "printed"), [(1, 10.828), (5, 20.515), (20, 45.315), (100, 149.449)]
    )
    def test_chi_squared_agrees_with_the_printed_table(self, degrees: int, printed: float) -> None:
        quantile = drift.chi_squared_quantile(0.999, degrees)
        assert quantile == pytest.approx(printed, rel=0.035 if degrees == 1 else 0.015)

    @pytest.mark.parametrize("now", [100, 1000, 20_000])
    def test_the_noise_of_the_index_is_exceeded_once_in_a_thousand(self, now: int) -> None:
        rng = np.random.default_rng(0)
        shares = rng.dirichlet(np.full(40, 0.5))
        exceeded = 0
        for _ in range(2000):
            sides = (rng.multinomial(size, shares) for size in (2000, now))
            before, after = (
                {str(i): int(n) for i, n in enumerate(counts) if n} for counts in sides
            )
            names, old, new = drift.pool(before, after)
            noise = drift.stability_noise(len(names), 2000, now)
            exceeded += drift.stability_terms(old, new).sum() > noise
        assert exceeded <= 8  # 2 expected; the pooled bins are few and not quite chi-squared

    def test_rare_bins_are_pooled_and_no_row_is_lost(self) -> None:
        before = {"a": 900, "b": 90, "c": 9, "d": 1}
        names, old, new = drift.pool(before, {"a": 90, "b": 8, "e": 2})
        assert names == ["a", "b", drift.REST]
        assert (old.tolist(), new.tolist()) == ([900, 90, 10], [90, 8, 2])

    def test_a_label_that_is_new_and_common_is_no_rare_one(self) -> None:
        names, old, new = drift.pool({"a": 5000}, {"a": 90, "b": 10})
        assert (names, old.tolist(), new.tolist()) == (["a", drift.REST], [5000, 0], [90, 10])
        names, _, _ = drift.pool({"a": 5000}, {"a": 9000, "b": 1000})
        assert names == ["a", "b"]

    def test_failure_shares_have_the_noise_that_is_claimed(self) -> None:
        rng = np.random.default_rng(0)
        before, now = (rng.binomial(n, 0.03, 20_000) / n for n in (700, 500))
        h = [drift.cohens_h(p, q) for p, q in zip(before, now, strict=True)]
        assert np.std(h) == pytest.approx(math.sqrt(1 / 700 + 1 / 500), rel=0.05)

    def test_centroid_distance_by_hand(self) -> None:
        before, now = vectors(0, 400), vectors(1, 300, shift=0.7)
        pooled = np.sqrt((400 * before.var(axis=0) + 300 * now.var(axis=0)) / 700)
        d = (now.mean(axis=0) - before.mean(axis=0)) / pooled
        distance = drift.centroid_distance(Moments.of(before), Moments.of(now))
        assert distance == pytest.approx(np.sqrt((d**2).mean()), rel=1e-4)
        assert distance == pytest.approx(0.7, abs=0.1)

    def test_a_dimension_that_never_varies_counts_for_nothing(self) -> None:
        before, now = vectors(0, 200), vectors(1, 200)
        constant = np.full((200, 1), 3.0, np.float32)
        wider = [Moments.of(np.hstack([side, constant])) for side in (before, now)]
        plain = drift.centroid_distance(Moments.of(before), Moments.of(now))
        assert drift.centroid_distance(*wider) == pytest.approx(plain)

    @pytest.mark.parametrize("correlation", [0.0, 0.999])
    def test_centroid_noise_bounds_chance_however_dimensions_depend(
        self, correlation: float
    ) -> None:
        rng = np.random.default_rng(0)
        exceeded = 0
        for _ in range(2000):
            common = rng.normal(size=(400, 1)) * math.sqrt(correlation)
            x = common + rng.normal(size=(400, 8)) * math.sqrt(1 - correlation)
            distance = drift.centroid_distance(Moments.of(x[:300]), Moments.of(x[300:]))
            exceeded += distance > drift.centroid_noise(300, 100)
        assert exceeded <= 8


class TestCompare:
    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("now", [100, 3000])
    def test_unchanged_images_raise_no_alarm(self, seed: int, now: int) -> None:
        before = summary(softmax(seed, 4000), vectors(seed, 4000), 40)
        tonight = summary(softmax(seed + 100, now), vectors(seed + 100, now), now // 100)
        changes = compare(before, tonight)
        assert set(by_name(changes)) == {
            "label shares", "top-1 score", "failures", "embedding centroid",
        }  # fmt: skip
        assert not [str(change) for change in changes if change.alarm]

    @pytest.mark.parametrize("now", [300, 3000])
    @pytest.mark.parametrize(
        ("what", "tonight"),
        [
            ("label shares", lambda n: summary(softmax(1, n, favour=3), vectors(1, n), n // 100)),
            ("top-1 score", lambda n: summary(softmax(1, n, sure=0.7), vectors(1, n), n // 100)),
            ("failures", lambda n: summary(softmax(1, n), vectors(1, n), n // 8)),
            (
                "embedding centroid",
                lambda n: summary(softmax(1, n), vectors(1, n, shift=0.8), n // 100),
            ),
        ],
    )
    def test_each_change_raises_its_own_alarm(self, what: str, tonight, now: int) -> None:  # type: ignore[no-untyped-def]
        before = summary(softmax(0, 4000), vectors(0, 4000), 40)
        raised = {change.what for change in compare(before, tonight(now)) if change.alarm}
        # Half of the rows in one class, of which the model is sure, is a change of both.
        assert raised - ({"top-1 score"} if what == "label shares" else set()) == {what}

    def test_fewer_failures_are_no_alarm(self) -> None:
        before, now = summary(softmax(0, 1000), failed=500), summary(softmax(1, 1000))
        assert not by_name(compare(before, now))["failures"].alarm

    def test_too_few_images_say_nothing(self) -> None:
        few, many = summary(softmax(0, 99)), summary(softmax(1, 1000))
        assert compare(few, many) == compare(many, few) == []

    def test_terms_add_up_to_the_index(self) -> None:
        changes = compare(summary(softmax(0, 900)), summary(softmax(1, 900, favour=0)))
        for what in ("label shares", "top-1 score"):
            terms = [c for c in changes if c.what == what and c.label is not None]
            assert sum(c.value for c in terms) == pytest.approx(by_name(changes)[what].value)
            assert sum(c.now or 0 for c in terms) == pytest.approx(1)
            assert [c.value for c in terms] == sorted((c.value for c in terms), reverse=True)
        assert next(c for c in changes if c.what == "label shares" and c.label).label == "class 0"
