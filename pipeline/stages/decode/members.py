"""How far shards are read whose images nobody has counted yet: what the estimate of a run needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.plan.shards import MEMBER_BYTES
from pipeline.sources.formats.registry import is_shard


class Members:
    """Counts the members of the shards of a task, as ``ShardImages.estimate`` takes them."""

    def __init__(self, work: pa.Table) -> None:
        untold = work.filter(pc.and_(is_shard(work["kind"]), pc.is_null(work["images"])))
        self._left = {row["uri"]: row["size_bytes"] or 0 for row in untold.to_pylist()}
        """Of each shard, the bytes that no member was counted for."""
        self._done = sum(len(done or ()) for done in untold["_done"].to_pylist())

    def count(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """What a block of DECODED rows adds."""
        members, size, finished = self._done, 0, 0
        self._done = 0
        for row in rows:
            shard = row["_shard"]
            if shard in self._left:
                members += 1
                read = (row["size_bytes"] or 0) + MEMBER_BYTES
                if row["_shard_rows"] is not None:  # its last: whatever else it held is read, too
                    read = self._left[shard]
                    finished += 1
                self._left[shard] -= read
                size += read
        numbers = {"members": members, "member_bytes": size, "shards_read": finished}
        return {name: number for name, number in numbers.items() if number}
