"""The part of a listing that a trial run is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import PolicySpec
from pipeline.output.ledger.hashes import hash_strings

_HASHES = 2.0**64


def selected(listing: Iterable[pa.Table], policy: PolicySpec) -> Iterator[pa.Table]:
    """Of a listing, what ``sample`` takes by the hashes of the URIs, and of that the first
    ``limit``. The same names are taken whenever they are listed, and more with a larger share.

    Raises:
        UsageError: at the end, if there was something and nothing was taken.
    """
    seen = taken = 0
    for table in listing:
        part = _sampled(table, policy.share) if policy.share < 1 else table
        if policy.limit is not None:
            part = part.slice(0, policy.limit - taken)
        seen, taken = seen + len(table), taken + len(part)
        if len(part):
            yield part
        if taken == policy.limit:
            return
    if seen and not taken:
        raise UsageError(
            f"<policy.sample> {policy.sample} takes none of the {seen} files; give a larger share"
        )


def _sampled(table: pa.Table, share: float) -> pa.Table:
    return table.filter(pa.array(hash_strings(table["uri"]) < np.uint64(share * _HASHES)))
