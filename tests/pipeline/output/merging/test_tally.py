"""Pieces of what is counted add up to what is counted at once."""

import numpy as np
import pytest

from pipeline.output.merging.tally import FAILURES_SHOWN, Tally, repeated, split_by_range
from tests.support.outputs.open_runs import names, result_rows

FAILED = set(names(200)[::3])


def tally_of(uris: list[str]) -> Tally:
    tally = Tally()
    tally.add(result_rows(uris, FAILED))
    return tally


@pytest.mark.parametrize("cut", [0, 1, 60, 199, 200])
def test_two_pieces_make_the_whole(cut: int) -> None:
    uris = names(200)
    found = tally_of(uris[:cut])
    found.include(tally_of(uris[cut:]))
    assert found == tally_of(uris)
    assert len(found.failure_examples) == FAILURES_SHOWN < found.failed


@pytest.mark.parametrize("ranges", [1, 2, 3, 7])
def test_ranges_hold_every_hash_once(ranges: int) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64, endpoint=False)
    hashes[:3] = [0, 2**64 - 1, 2**63]
    pieces = split_by_range(hashes, ranges)
    assert len(pieces) == ranges
    assert np.concatenate(pieces).tolist() == sorted(hashes.tolist())
    width = 2**64 // ranges
    assert all(int(h) // width in (n, n + 1) for n, piece in enumerate(pieces) for h in piece)
    assert min(map(len, pieces)) > 1000 // ranges // 2


def test_the_same_hash_is_in_the_same_range_wherever_it_comes_from() -> None:
    rng = np.random.default_rng(1)
    every = rng.integers(0, 2**64, 500, np.uint64, endpoint=False)
    files = [every[:300], every[200:], every[:7]]
    pieces = [split_by_range(hashes, 5) for hashes in files]
    assert sum(len(repeated([piece[n] for piece in pieces])) for n in range(5)) == 100 + 7
    assert len(repeated([])) == 0
