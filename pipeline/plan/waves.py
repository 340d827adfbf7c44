"""A run's work in waves: what was listed so far is computed while the listing goes on.

A bucket of millions takes minutes to list and hours to compute. The first wave is the work found in
a few seconds of listing, each later one what was found in the meantime; a bucket of ordinary size
is listed in these seconds, and done in one wave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.output.ledger.hashes import HashIndex
from pipeline.output.merging.dropping import drop_rows
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan, Work
from pipeline.sources.inventory import CHUNK_ROWS
from pipeline.storage.read_ahead import Ahead

HEAD_START_SECONDS = 5.0
"""How long the run waits for the end of the listing before it begins without it."""
SMALLEST_WAVE = 10_000
"""Images; a wave starts its own actors, which must be worthwhile."""
LARGEST_WAVE = 1_000_000
"""Images; also how far the listing runs ahead. Some 200 bytes each on the driver."""

log = logging.getLogger(__name__)


def listing_ahead(tables: Iterable[pa.Table]) -> Ahead[pa.Table]:
    """LISTING tables, read ahead as far as memory allows."""
    return Ahead(tables, LARGEST_WAVE // CHUNK_ROWS)


def waves(
    listing: Ahead[pa.Table],
    plan: Plan,
    open_run: OpenRun,
    drop: Callable[[OpenRun, HashIndex], None] = drop_rows,
) -> Iterator[Work]:
    """The work, wave by wave; the last may be empty, the others are not.

    Before the last one, rows of the open run that the listing has shown to be stale are dropped.

    Raises:
        UsageError: the listing failed before the first wave.
        RunError: it failed later.
    """
    work, computed = Work(), False
    tables = iter(listing)
    while (table := _next(listing, tables, computed)) is not None:
        work += plan.add(table)
        is_due = work.weight >= SMALLEST_WAVE and not listing.is_ready
        if is_due or work.weight >= LARGEST_WAVE:
            log.info("plan so far: %s; the listing goes on", plan)
            yield work
            work, computed = Work(), True
    work += plan.finish()
    drop(open_run, plan.stale())
    log.info("plan: %s", plan)
    yield work


def _next(listing: Ahead[pa.Table], tables: Iterator[pa.Table], computed: bool) -> pa.Table | None:
    """What is there, or comes next: a ledger in actors is asked by one message to each of them,
    however many rows a table has."""
    found: list[pa.Table] = []
    try:
        while not found or (listing.is_ready and sum(map(len, found)) < LARGEST_WAVE // 5):
            if (table := next(tables, None)) is None:
                break
            found.append(table)
    except UsageError as error:
        if not computed:
            raise
        raise RunError(
            f"the listing broke off: {one_line(error)}; start the same command again to continue"
        ) from error
    return pa.concat_tables(found) if found else None
