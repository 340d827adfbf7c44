"""What a listing has met of a ledger so far, and thus, at its end, what it has not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.output.ledger.hashes import HashIndex, Keys, Mask, Positions
from pipeline.output.ledger.known import Known, Matches


class Sightings:
    """A ledger, and which of its images and shards the listing has met: a bit for each."""

    def __init__(self, ledger: Known) -> None:
        self.ledger = ledger
        images, shards = ledger.sizes
        self._images, self._shards = _Marks(images), _Marks(shards)

    def meet_images(self, listing: pa.Table) -> Matches:
        """Compare images of a LISTING with the ledger, and remember that they were met."""
        return self._meet(listing, self._images, are_shards=False)

    def meet_shards(self, listing: pa.Table) -> Matches:
        """The same for shards."""
        return self._meet(listing, self._shards, are_shards=True)

    def _meet(self, listing: pa.Table, marks: _Marks, *, are_shards: bool) -> Matches:
        keys = Keys.of(listing, self.ledger.names)
        matches = self.ledger.match(keys, are_shards=are_shards)
        marks.seen.set(matches.at[matches.known])
        marks.same.set(matches.at[matches.same])
        return matches

    def vanished(self, now: Known | None = None) -> HashIndex:
        """The URIs of the rows whose object was not met, or that their shard has no longer: as
        earlier runs found or, if given, the rows of the run that read it ``now``."""
        return self.ledger.vanished(self._images.seen.mask, self._shards.seen.mask, now)

    def stale(self) -> HashIndex:
        """The URIs of the rows whose object was not met in the row's version."""
        return self.ledger.stale(self._images.same.mask, self._shards.same.mask)


class _Marks:
    """Of the images, or of the shards, of a ledger."""

    def __init__(self, size: int) -> None:
        self.seen = Bits(size)
        self.same = Bits(size)
        """Seen in the version that the ledger has."""


class Bits:
    """So many bits, all of them unset."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = np.zeros((size + 7) // 8, np.uint8)

    def set(self, positions: Positions) -> None:
        """Set those at these positions, some of which may be the same."""
        bits = np.left_shift(1, positions & 7).astype(np.uint8)
        np.bitwise_or.at(self._bytes, positions >> 3, bits)

    @property
    def mask(self) -> Mask:
        """Which are set."""
        return np.unpackbits(self._bytes, count=self._size, bitorder="little").astype(bool)
