"""The listing of a run: in this process and, when it turns out to be long, on the cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from pipeline.contract.spec import ComputeSpec, RunSpec
from pipeline.plan.selection import selected
from pipeline.plan.waves import HEAD_START_SECONDS, listing_ahead
from pipeline.sources.exclusion import Exclusion
from pipeline.sources.inventory import inventory
from pipeline.stages.cluster.ray_session import connect, on_cluster
from pipeline.stages.rows.listing import ListingTasks
from pipeline.storage.objects.listing.stretches import Helpers
from pipeline.storage.read_ahead import Ahead

log = logging.getLogger(__name__)


def listed(
    spec: RunSpec,
    output: str,
    kept: pa.Schema,
    exclusion: Exclusion,
    helpers: Helpers | None = None,
) -> Iterator[pa.Table]:
    """What a run is about, as LISTING tables.

    Args:
        output: its URI, below which nothing is listed.
        kept: columns of lists that are carried along.
        exclusion: counts what is left out.
        helpers: as for ``inventory``.
    """
    tables = inventory(spec.inputs, exclude=output, kept=kept, exclusion=exclusion, helpers=helpers)
    return selected(tables, spec.policy) if spec.policy.is_partial else tables


@contextmanager
def begun(
    listing: Callable[[Helpers], Iterator[pa.Table]], compute: ComputeSpec, *, debug: bool = False
) -> Iterator[Ahead[pa.Table]]:
    """A listing that has had its head start. One that has not ended by then is a long one: on a
    cluster it goes on in tasks there, as far as the store lists from any name on.

    Raises:
        UsageError: it has failed, or the cluster cannot be reached.
    """
    with ListingTasks() as tasks, listing_ahead(listing(tasks)) as ahead:
        if not ahead.wait_for_end(HEAD_START_SECONDS) and on_cluster():
            connect(compute, debug=debug)
            tasks.begin()
        yield ahead
