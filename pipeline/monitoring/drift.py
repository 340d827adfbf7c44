"""Has something changed? Statistics that compare a run with the runs before it.

Every statistic has a limit, above which a change matters, and a noise level, which two samples of
these sizes from the same images exceed once in a thousand times (``ALPHA``). Its threshold is the
larger of the two, so that a night with few images does not cry wolf.

    label shares, top-1 score   population stability index (PSI)         0.25
    failures                    Cohen's h, of all and of each code       0.2, upwards
    embedding centroid          RMS of Cohen's d over the dimensions     0.5
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.contract.manifest import Change
from pipeline.monitoring.summary import Moments, Summary

MIN_IMAGES = 100
"""Fewer images than this, on either side, are too few to tell."""
ALPHA = 0.001
PSI_LIMIT = 0.25
"""A "major shift" in Siddiqi, Credit Risk Scorecards (2006), ch. 9."""
H_LIMIT = 0.2
"""A "small" difference of proportions in Cohen, Statistical Power Analysis (1988), ch. 6.2: from
1 % to 4 %, from 10 % to 17 %."""
D_LIMIT = 0.5
"""A "medium" difference of means, one visible to the naked eye, in Cohen (1988), ch. 2.2."""
MIN_EXPECTED = 5
"""Bins with fewer expected rows are pooled (Cochran, Biometrics 10, 1954)."""

PSI = "population stability index"
COHENS_H = "Cohen's h"
COHENS_D = "RMS of Cohen's d over the dimensions"
LABELS = "label shares"
SCORE = "top-1 score"
FAILURES = "failures"
CENTROID = "embedding centroid"
REST = "(rare ones together)"

Counts = npt.NDArray[np.int64]

CHANGES = pa.schema(
    [
        pa.field("what", pa.string(), nullable=False),
        pa.field("label", pa.string()),  # a label, a bin or an error code; null for the whole
        pa.field("before", pa.float64()),
        pa.field("now", pa.float64()),
        pa.field("statistic", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("threshold", pa.float64()),
        pa.field("alarm", pa.bool_(), nullable=False),
    ]
)
"""``before`` and ``now`` are shares. A row without a threshold is a term of the row above it."""


def compare(before: Summary, now: Summary) -> list[Change]:
    """Every statistic that both sides have enough images for."""
    changes: list[Change] = []
    if min(before.images, now.images) >= MIN_IMAGES:
        changes += _failures(before, now)
    if min(before.labels.total(), now.labels.total()) >= MIN_IMAGES:
        changes += _shares(LABELS, before.labels, now.labels)
    if min(before.scores.total(), now.scores.total()) >= MIN_IMAGES:
        changes += _shares(SCORE, before.scores, now.scores)
    centroids = [m for m in (before.embedding, now.embedding) if m and m.count >= MIN_IMAGES]
    if len(centroids) == 2:
        changes.append(_centroid(*centroids))
    return changes


def to_table(changes: list[Change]) -> pa.Table:
    """The changes as a table of ``CHANGES``."""
    return pa.Table.from_pylist([change.to_dict() for change in changes], schema=CHANGES)


def stability_terms(before: Counts, now: Counts) -> npt.NDArray[np.float64]:
    """The terms (q - p) ln(q / p) of the population stability index; their sum is the index.

    Siddiqi (2006), ch. 9; it is Jeffreys' divergence. Half a row is added to every bin, so that
    an empty one has a logarithm.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (before, now))
    terms: npt.NDArray[np.float64] = (q - p) * np.log(q / p)
    return terms


def stability_noise(bins: int, before: int, now: int) -> float:
    """What the index exceeds with probability ``ALPHA`` when nothing has changed.

    It is then distributed as (1/n + 1/m) times chi-squared with bins - 1 degrees of freedom
    (Yurdakul and Naranjo, "Statistical properties of the population stability index", J. Risk
    Model Validation 14, 2020).
    """
    return (1 / before + 1 / now) * chi_squared_quantile(1 - ALPHA, bins - 1)


def chi_squared_quantile(probability: float, degrees: int) -> float:
    """Wilson and Hilferty's approximation (PNAS 17, 1931); 3 % off at one degree, 1 % at five."""
    if not degrees:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(probability) * math.sqrt(spread)) ** 3


def _shares(what: str, before: Mapping[str, int], now: Mapping[str, int]) -> Iterator[Change]:
    """The index of two histograms, then its terms, largest first."""
    names, old, new = pool(before, now)
    terms = stability_terms(old, new)
    noise = stability_noise(len(names), int(old.sum()), int(new.sum()))
    yield Change(what, None, None, None, PSI, float(terms.sum()), max(PSI_LIMIT, noise))
    p, q = old / old.sum(), new / new.sum()
    for i in np.argsort(-terms, kind="stable"):
        yield Change(what, names[i], float(p[i]), float(q[i]), PSI, float(terms[i]))


def pool(before: Mapping[str, int], now: Mapping[str, int]) -> tuple[list[str], Counts, Counts]:
    """Names and counts of the bins; those that would be rare in the smaller sample become one."""
    names = sorted(before.keys() | now.keys())
    old, new = (np.array([side.get(n, 0) for n in names], np.int64) for side in (before, now))
    share = min(old.sum(), new.sum()) / (old.sum() + new.sum())
    order = np.argsort(-(old + new), kind="stable")
    kept = order[((old + new) * share)[order] >= MIN_EXPECTED]
    rare = order[len(kept) :]
    if not rare.size:
        return [names[i] for i in kept], old[kept], new[kept]
    counts = [np.append(side[kept], side[rare].sum()) for side in (old, new)]
    return [*(names[i] for i in kept), REST], counts[0], counts[1]


def cohens_h(before: float, now: float) -> float:
    """2 asin sqrt(q) - 2 asin sqrt(p), of two shares (Cohen 1988, ch. 6.2)."""
    return 2 * math.asin(math.sqrt(now)) - 2 * math.asin(math.sqrt(before))


def _failures(before: Summary, now: Summary) -> Iterator[Change]:
    """Whether there are more failures, in all and of each code. The variance of h is 1/n + 1/m
    whatever the shares; ``ALPHA`` is divided among the rows (Bonferroni)."""
    codes = sorted(before.failures.keys() | now.failures.keys())
    tail = NormalDist().inv_cdf(1 - ALPHA / (1 + len(codes)))
    threshold = max(H_LIMIT, tail * math.sqrt(1 / before.images + 1 / now.images))
    shares: list[tuple[str | None, int, int]] = [
        (None, before.failures.total(), now.failures.total()),
        *((code, before.failures[code], now.failures[code]) for code in codes),
    ]
    for code, old, new in shares:
        p, q = old / before.images, new / now.images
        yield Change(FAILURES, code, p, q, COHENS_H, cohens_h(p, q), threshold)


def centroid_distance(before: Moments, now: Moments) -> float:
    """sqrt(mean over the dimensions of (difference of means / pooled deviation)^2).

    Cohen's d (1988, ch. 2.2) of every dimension; together a Mahalanobis distance with a
    diagonal covariance, over sqrt(C). Dimensions that never vary do not count.
    """
    variance = (before.squares + now.squares) / (before.count + now.count)
    varies = variance > 0
    if not varies.any():
        return 0.0
    d = (now.mean - before.mean)[varies] ** 2 / variance[varies]
    return float(np.sqrt(d.mean()))


def centroid_noise(before: int, now: int) -> float:
    """What the distance exceeds with probability ``ALPHA`` at most when nothing has changed.

    Its square is (1/n + 1/m) times a mean of chi-squared variables of one degree each, which
    depend on each other in an unknown way; in the tail none is larger than one alone (Székely and
    Bakirov, "Extremal probabilities for Gaussian quadratic forms", 2003).
    """
    return math.sqrt(1 / before + 1 / now) * NormalDist().inv_cdf(1 - ALPHA / 2)


def _centroid(before: Moments, now: Moments) -> Change:
    threshold = max(D_LIMIT, centroid_noise(before.count, now.count))
    distance = centroid_distance(before, now)
    return Change(CENTROID, None, None, None, COHENS_D, distance, threshold)
