"""What a listing has met of a ledger so far, and thus, at its end, what it has not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.output.ledger.ledger import HashIndex, Ledger, Mask, Matches, Objects


class Sightings:
    """A ledger, and which of its images and shards the listing has met."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._images = _Marks(ledger.images)
        self._shards = _Marks(ledger.shards)

    def meet_images(self, listing: pa.Table) -> Matches:
        """Compare images of a LISTING with the ledger, and remember that they were met."""
        return self._images.meet(listing)

    def meet_shards(self, listing: pa.Table) -> Matches:
        """The same for shards."""
        return self._shards.meet(listing)

    def vanished(self, now: Ledger | None = None) -> HashIndex:
        """The URIs of the rows whose object was not met, or that their shard has no longer: as
        earlier runs found or, if given, the rows of the run that read it ``now``."""
        met = self._images.seen | self.ledger.of_shards(self._shards.seen)
        gone = ~met | self.ledger.superseded
        if now is not None:
            gone |= self.ledger.replaced_by(now)
            gone &= ~now.images.index.find(self.ledger.uris)[0]
        return HashIndex(self.ledger.uris[gone])

    def stale(self) -> HashIndex:
        """The URIs of the rows whose object was not met in the row's version."""
        shards = self.ledger.shards
        is_newest = self.ledger.of_shards(shards.versions) == self.ledger.images.versions
        members = self.ledger.of_shards(self._shards.same) & is_newest
        return HashIndex(self.ledger.uris[~(self._images.same | members)])


class _Marks:
    """One mark for each object of a ledger."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.seen: Mask = np.zeros(len(objects), bool)
        self.same: Mask = np.zeros(len(objects), bool)
        """Seen in the version that the ledger has."""

    def meet(self, listing: pa.Table) -> Matches:
        matches = self.objects.match(listing["uri"], listing["source_version"])
        self.seen[matches.at[matches.known]] = True
        self.same[matches.at[matches.same]] = True
        return matches
