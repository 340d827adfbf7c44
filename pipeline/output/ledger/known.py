"""What a ledger is asked, wherever its rows are, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.output.ledger.hashes import (
    Hashes,
    HashIndex,
    Keys,
    Mask,
    Numbers,
    Positions,
    ShardNames,
)


@dataclass(frozen=True)
class Matches:
    """How listed objects compare with the ledger, one element per object."""

    known: Mask
    """The object has rows."""
    same: Mask
    """... with the same source_version."""
    at: Positions
    """The position of the object in the ledger; meaningful only where it is known."""
    rows: Numbers
    """How many rows the ledger has of the object: 1 for an image, one per member of a shard."""
    failures: Numbers
    """(objects, codes): how many of these rows failed, by the codes of the ledger."""


class Known(Protocol):
    """Rows of earlier runs, or of an open one: a ``Ledger``, or several of them on a cluster."""

    @property
    def names(self) -> ShardNames:
        """How shards are recognised."""
        ...

    @property
    def codes(self) -> list[str]:
        """The error codes of failed rows."""
        ...

    @property
    def sizes(self) -> tuple[int, int]:
        """How many rows there are, and how many shards."""
        ...

    def match(self, keys: Keys, *, are_shards: bool) -> Matches:
        """Compare listed images, or shards, with these."""
        ...

    def vanished(self, met: Mask, met_shards: Mask, now: Known | None) -> HashIndex:
        """The URIs of the rows whose object was not met, or that their shard has no longer: as
        earlier runs found or, if given, the rows of the run that read it ``now``.

        Args:
            met: of each row, by position, whether an image of its name was met.
            met_shards: of each shard, whether it was.
            now: the rows of the open run.
        """
        ...

    def stale(self, same: Mask, same_shards: Mask) -> HashIndex:
        """The URIs of the rows whose object was not met in the row's version.

        Args:
            same: of each row, by position, whether an image of its name was met in its version.
            same_shards: of each shard, whether it was met in that of its newest row.
        """
        ...

    def look_up(self, uris: Hashes, shards: Hashes) -> tuple[Mask, Mask]:
        """Of rows of earlier runs: which there are here, too, and which there are not although
        their shard was read to its end.

        Args:
            uris: of the rows.
            shards: of their shards, 0 for single images.
        """
        ...
