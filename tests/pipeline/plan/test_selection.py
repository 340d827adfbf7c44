"""Trials: a part of the listing, the same one whenever it is listed."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import PolicySpec
from pipeline.plan.selection import selected

NAMES = [f"s3://bucket/{number:05}.jpg" for number in range(10_000)]


def taken(policy: PolicySpec, names: list[str] = NAMES, chunk: int = 700) -> list[str]:
    def listing() -> Iterator[pa.Table]:
        for at in range(0, len(names), chunk):
            yield pa.table({"uri": names[at : at + chunk]})

    return [uri for table in selected(listing(), policy) for uri in table["uri"].to_pylist()]


@pytest.mark.parametrize("limit", [1, 700, 701, 9_999, 20_000])
def test_the_first_files(limit: int) -> None:
    assert taken(PolicySpec(limit=limit)) == NAMES[:limit]


def test_a_limit_ends_the_listing() -> None:
    def listing() -> Iterator[pa.Table]:
        yield pa.table({"uri": NAMES[:5]})
        raise AssertionError("nobody needs more")

    assert sum(map(len, selected(listing(), PolicySpec(limit=5)))) == 5


def test_a_share_is_the_same_whatever_else_is_listed() -> None:
    some = taken(PolicySpec(sample="1%"))
    assert 60 < len(some) < 140
    assert taken(PolicySpec(sample=0.01), NAMES[::-1], chunk=3)[::-1] == some
    half = taken(PolicySpec(sample="50%"))
    assert 4_800 < len(half) < 5_200
    assert set(some) < set(half)
    assert taken(PolicySpec(sample="100%")) == NAMES


def test_a_share_is_taken_first_then_the_limit() -> None:
    assert taken(PolicySpec(sample="1%", limit=3)) == taken(PolicySpec(sample="1%"))[:3]


def test_a_share_of_nothing() -> None:
    with pytest.raises(UsageError, match="takes none of the 3 files; give a larger share"):
        taken(PolicySpec(sample=1e-9), NAMES[:3])


@pytest.mark.parametrize("sample", ["0", "0%", "101%", 1.5, "-1%", "one", "", "1%%", "nan", "1% x"])
def test_what_is_no_share(sample: str | float) -> None:
    with pytest.raises(UsageError, match="it must be a share of the files, such as"):
        PolicySpec(sample=sample)


@pytest.mark.parametrize("part", [{"limit": 1}, {"sample": "1%"}])
def test_a_part_replaces_nothing(part: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"excludes policy\.full, which replaces the rows of all"):
        PolicySpec(full=True, **part)
