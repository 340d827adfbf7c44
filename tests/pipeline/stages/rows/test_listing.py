"""A listing in Ray tasks is the listing."""

import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import ray

from jobs.bench.synthetic.bucket import made_up_bucket
from pipeline.contract.spec import InputSpec
from pipeline.output.ledger.hashes import Keys
from pipeline.sources.inventory import inventory
from pipeline.stages.rows import listing as module
from pipeline.stages.rows.listing import LEAST_AT_ONCE, ListingTasks
from pipeline.stages.watching import reach
from pipeline.storage.objects.listing.ranges import listed_in_ranges
from pipeline.storage.objects.listing.stretches import Far, KeyPage

NAMES = [f"p/image-{number:05d}.jpg" for number in range(2000)]
PAGE = 10


@dataclass
class Store:
    """Lists names, and the first process that is asked for these ends without a word."""

    marker: Path

    def read(self, after: str, token: str | None) -> KeyPage[str]:
        start = int(token) if token else sum(name <= after for name in NAMES)
        found = NAMES[start : start + PAGE]
        if "p/image-00500.jpg" in found and not self.marker.exists():
            self.marker.touch()
            os._exit(1)
        following = str(start + PAGE) if start + PAGE < len(NAMES) else None
        return KeyPage(found, found, following)


def together(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


pytestmark = pytest.mark.usefixtures("ray_local")


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path / "died")
    with ListingTasks() as tasks:
        tasks.begin()
        listing = listed_in_ranges(store.read, "p/", Far(tasks, together))
        found = list(listing)
        assert tasks.at_once == LEAST_AT_ONCE  # more than there are CPUs
    assert store.marker.exists()
    names = [name for one in found for name in ([one] if isinstance(one, str) else one)]
    assert names == NAMES


def test_rows_of_a_bucket() -> None:
    """The tasks find the server by the settings of this process."""
    with made_up_bucket(20_500, 0) as uri, ListingTasks() as tasks:
        tasks.begin()
        spec = InputSpec(uris=(uri,))
        alone = [row for table in inventory(spec) for row in table.to_pylist()]
        tables = list(inventory(spec, helpers=tasks))
    assert [row for table in tables for row in Keys.detach(table).to_pylist()] == alone
    assert sum(len(table) for table in tables if Keys.detach(table) != table) > 15_000


def test_nobody_waits_for_it_after_its_end() -> None:
    with ListingTasks() as tasks:
        tasks.begin()
    with pytest.raises(RuntimeError, match="over"):
        tasks.call(dict)


def test_where_no_task_begins_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on hosts that the run goes on without, which are all there are here."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(reach, "_left_out", {ray.get_runtime_context().get_node_id()})
    with ListingTasks() as tasks:
        tasks.begin()
        with pytest.raises(OSError, match="no task has listed within 1 s"):
            tasks.call(dict)


def wait_for_ever(process: Path) -> None:
    """After writing down who waits."""
    process.with_suffix(".new").write_text(str(os.getpid()))
    process.with_suffix(".new").rename(process)
    threading.Event().wait()


def test_what_is_under_way_ends_with_it(tmp_path: Path) -> None:
    process = tmp_path / "process"
    with ThreadPoolExecutor(1) as thread:
        with ListingTasks() as tasks:
            tasks.begin()
            waiting = thread.submit(tasks.call, partial(wait_for_ever, process))
            while not process.exists():
                time.sleep(0.02)
        with pytest.raises(RuntimeError, match="over"):
            waiting.result()
    while is_running(int(process.read_text())):
        time.sleep(0.02)


def is_running(process: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    return False
