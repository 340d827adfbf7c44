"""Where a listing goes on: it is the cluster's if it is long, and there is one."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.contract.schema import LISTING
from pipeline.contract.spec import ComputeSpec
from pipeline.runs.computing import listing as module
from pipeline.runs.computing.listing import begun
from pipeline.stages.rows.listing import ListingTasks
from pipeline.storage.objects.listing.stretches import Helpers


@pytest.mark.parametrize("on_cluster", [False, True])
@pytest.mark.parametrize("is_long", [False, True])
def test_a_long_one_asks_the_cluster(
    monkeypatch: pytest.MonkeyPatch, is_long: bool, on_cluster: bool
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(module, "HEAD_START_SECONDS", 0.05 if is_long else 60)
    monkeypatch.setattr(module, "on_cluster", lambda: on_cluster)
    monkeypatch.setattr(module, "connect", lambda *_, **__: steps.append("connected"))
    monkeypatch.setattr(ListingTasks, "begin", lambda self: steps.append("began"))
    goes_on = threading.Event()

    def listing(helpers: Helpers) -> Iterator[pa.Table]:
        assert not helpers.is_ready
        yield LISTING.empty_table()
        if is_long:
            goes_on.wait(60)

    with begun(listing, ComputeSpec()) as ahead:
        assert steps == (["connected", "began"] if is_long and on_cluster else [])
        goes_on.set()
        assert list(ahead) == [LISTING.empty_table()]
