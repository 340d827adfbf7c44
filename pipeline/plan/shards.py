"""How many images the shards of a run hold, long before the last one is read.

Footers of Parquet files tell it. The members of a tar are known once it is read; until then its
size is compared with that of tars that are known: those of earlier runs that have not changed, and
what this run has read so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.ledger.hashes import Numbers

MEMBER_BYTES = 1024
"""Of a tar, around the bytes of an image: its header and what fills its last block, about."""


@dataclass(frozen=True)
class Estimate:
    """A number of images, and whether it is certain."""

    images: int
    is_certain: bool

    def __str__(self) -> str:
        return f"{'' if self.is_certain else 'about '}{self.images}"


@dataclass
class ShardImages:
    """Counts the images in shards to do, as far as that is possible."""

    told: int = 0
    """By footers."""
    untold: int = 0
    """Shards whose images are not known before they are read."""
    untold_bytes: int = 0
    unsized: int = 0
    """Shards among them of unknown size, as lists name them."""
    earlier_images: int = 0
    """Of unchanged shards of earlier runs."""
    earlier_bytes: int = 0

    def add(self, shards: pa.Table) -> None:
        """Take shards of a LISTING that are to be read."""
        untold = shards.filter(pc.is_null(shards["images"]))
        self.told += pc.sum(shards["images"]).as_py() or 0
        self.untold += len(untold)
        self.untold_bytes += pc.sum(untold["size_bytes"]).as_py() or 0
        self.unsized += untold["size_bytes"].null_count

    def learn(self, shards: pa.Table, images: Numbers) -> None:
        """Take shards that earlier runs have read, and how many images each of them has."""
        counts = pa.array(images)
        is_like = pc.and_(pc.is_null(shards["images"]), pc.is_valid(shards["size_bytes"]))
        self.earlier_images += pc.sum(pc.filter(counts, is_like)).as_py() or 0
        self.earlier_bytes += pc.sum(pc.filter(shards["size_bytes"], is_like)).as_py() or 0

    def estimate(self, read: Mapping[str, float]) -> Estimate | None:
        """How many images there are in all; None as long as nothing is known.

        Args:
            read: what was read so far of shards whose images are not told: "members" and
                "member_bytes" (of those, or of the whole shard where it is read to its end), and
                "shards_read".
        """
        members, size = read.get("members", 0), read.get("member_bytes", 0)
        finished = read.get("shards_read", 0)
        if finished == self.untold:
            return Estimate(self.told + int(members), is_certain=True)
        if self.unsized:
            if not finished:
                return None
            rest = members / finished * max(self.untold - finished, 0)
        else:
            known = self.earlier_bytes + size
            if not known:
                return None
            rate = (self.earlier_images + members) / known
            rest = max(self.untold_bytes - size, 0) * rate
        return Estimate(self.told + int(members + rest), is_certain=False)
