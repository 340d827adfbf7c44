"""What is left to do: the inventory minus the ledger of earlier runs. Reads no image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import RunError
from pipeline.contract.schema import WORK
from pipeline.output.ledger.hashes import HashIndex, Keys, Mask, ShardNames
from pipeline.output.ledger.known import Known, Matches
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.open_run import Deferred, OpenRun
from pipeline.plan.counts import Counts
from pipeline.plan.shards import Estimate, ShardImages
from pipeline.plan.sightings import Sightings
from pipeline.sources.exclusion import Exclusion, told
from pipeline.sources.formats.registry import is_shard

IMAGES_OF_A_SHARD = 1000
NAMES = 10
"""How many a survey notes, for a person to see whether they are the right ones."""


@dataclass(frozen=True)
class Work:
    """Something to do, as WORK tables."""

    images: tuple[pa.Table, ...] = ()
    shards: tuple[pa.Table, ...] = ()

    def __add__(self, other: Work) -> Work:
        return Work(self.images + other.images, self.shards + other.shards)

    @property
    def num_images(self) -> int:
        return sum(table.num_rows for table in self.images)

    @property
    def num_shards(self) -> int:
        return sum(table.num_rows for table in self.shards)

    @property
    def is_empty(self) -> bool:
        return not self.num_images and not self.num_shards

    @property
    def weight(self) -> int:
        """Images, with a shard counted as a thousand: for choices that need no exact number."""
        return self.num_images + IMAGES_OF_A_SHARD * self.num_shards

    @property
    def mean_bytes(self) -> float:
        """Of an encoded image, as far as the listing has sizes; 0 if it has none."""
        sizes = [table["size_bytes"] for table in self.images]
        total = sum(pc.sum(size).as_py() or 0 for size in sizes)
        known = sum(len(size) - size.null_count for size in sizes)
        return total / known if known else 0.0

    def blocks(self, block_size: int) -> Iterator[pa.Table]:
        """Blocks of the data flow: shards one by one and first, since they take longest."""
        for table in self.shards:
            for row in range(table.num_rows):
                yield table.slice(row, 1)
        if self.images:
            images = pa.concat_tables(self.images).combine_chunks()
            for start in range(0, images.num_rows, block_size):
                yield images.slice(start, block_size)


class Plan:
    """Compares a listing, table by table, with the rows of earlier runs, and counts.

    Its memory does not grow with the work, which is handed out as it is found.
    """

    def __init__(
        self,
        ledger: Known,
        open_run: OpenRun,
        retry_codes: frozenset[str] = frozenset(),
        *,
        full: bool = False,
        partial: bool = False,
        exclusion: Exclusion | None = None,
        rows_of: Callable[[OpenRun, ShardNames], Known] = OpenRun.ledger,
    ) -> None:
        """
        Args:
            ledger: rows of closed runs.
            open_run: the run to continue; its committed rows are not computed again.
            retry_codes: failures with these codes count as not done.
            full: no row of the ledger counts as done; it only tells what has vanished.
            partial: the listing is a part, from which nobody can tell what has vanished.
            exclusion: that of the listing, which counts what it leaves out.
            rows_of: the rows that an open run has.
        """
        self.counts = Counts()
        self.num_images = 0
        """Images to do, not counting the members of shards."""
        self.shard_images = ShardImages()
        """The members of shards to do, with those that are done of begun ones."""
        self.first_names: list[str] = []
        """Of a survey: some of the images and shards to do."""
        self.is_complete = False
        """Whether the listing has ended."""
        self._earlier = Sightings(ledger)
        self._past = Sightings(Ledger.from_tables([], ledger.names)) if full else self._earlier
        self._staged = Sightings(rows_of(open_run, ledger.names))
        self._has_shards = self._staged.ledger.sizes[1] > 0
        self._exclusion = exclusion or Exclusion()
        self._open_run, self._rows_of = open_run, rows_of
        self._is_partial = partial
        self._closed_shards = open_run.closed_shards()
        self._retry = np.array([code in retry_codes for code in self._past.ledger.codes], bool)
        self._members_done: dict[str, int] = {}
        self._late = Work()

    def add(self, listing: pa.Table) -> Work:
        """What there is to do of a LISTING table, except what ``finish`` returns."""
        listing = Keys.attach(listing, self._past.ledger.names)
        of_shards = is_shard(listing["kind"])
        images, shards = listing.filter(pc.invert(of_shards)), listing.filter(of_shards)
        if self._past is not self._earlier:
            self._earlier.meet_images(images)
            self._earlier.meet_shards(shards)
        work = self._images(images)
        return work + self._shards(shards) if len(shards) else work

    def finish(self) -> Work:
        """After the whole listing: objects of which the open run has rows of another version.

        They must not be begun before those rows are dropped, and only now are they all known.
        """
        self.is_complete = True
        self.counts.vanished = len(self.vanished().keys)
        self.counts.excluded = self._exclusion.count
        self.counts.not_taken = told(self._exclusion.others.numbers)
        return self._late

    def vanished(self, *, is_done: bool = False) -> HashIndex:
        """After the whole listing: the URIs of closed runs' rows whose object was not listed or,
        as far as shards are read, no longer holds them; ``is_done`` says that all were."""
        if self._is_partial:
            return HashIndex(np.array([], np.uint64))
        earlier = self._earlier.ledger
        reads_shards = self.counts.shards or self._has_shards
        is_news = is_done and reads_shards and earlier.sizes[1]
        now = self._rows_of(self._open_run, earlier.names) if is_news else None
        return self._earlier.vanished(now)

    def stale(self) -> HashIndex:
        """After the whole listing: the URIs of the open run's rows whose object has changed or
        gone. It is asked once: what a cluster holds of these rows can then be forgotten."""
        staged = self._staged
        self._staged = Sightings(Ledger.from_tables([], staged.ledger.names))
        return staged.stale()

    def survey(self, listing: Iterable[pa.Table]) -> None:
        """Take a whole listing, for the counts alone."""
        for table in listing:
            self._note_names(self.add(table))
        self._note_names(self.finish())

    def _note_names(self, work: Work) -> None:
        for table in (*work.shards, *work.images):
            missing = NAMES - len(self.first_names)
            self.first_names += table["uri"].slice(0, missing).to_pylist()

    @property
    def is_empty(self) -> bool:
        """Whether nothing to do has been found so far."""
        return not self.num_images and not self.counts.shards

    def images_to_do(self, read: Mapping[str, float] = MappingProxyType({})) -> Estimate | None:
        """How many images there are to do in all, as far as that can be told.

        Args:
            read: what was read of shards, as for ``ShardImages.estimate``.
        """
        shards = self.shard_images.estimate(read)
        if shards is None:
            return None
        done = sum(self._members_done.values())
        return replace(shards, images=self.num_images + max(shards.images - done, 0))

    def expected_rows(self, closed_shards: dict[str, int], deferred: Deferred) -> int:
        """How many rows the run must have in the end, without those that it left to the next.

        Raises:
            RunError: a shard was not read to its end.
        """
        shards = [uri for uri in self._members_done if uri not in deferred.shards]
        left = [uri for uri in shards if uri not in closed_shards]
        if left:
            raise RunError(
                f"{len(left)} shards were not read to their end, the first is {left[0]}; "
                "start the same command again"
            )
        begun = sum(self._members_done.values())
        members = sum(closed_shards[uri] for uri in shards)
        return self.counts.finished - begun + self.num_images - deferred.images + members

    def __str__(self) -> str:
        """The counts in one line."""
        return self.counts.line(self._of_shards)

    @property
    def _of_shards(self) -> str:
        found = self.shard_images.estimate({})
        return f" with {found} images" if found else ""

    def _images(self, table: pa.Table) -> Work:
        staged = self._staged.meet_images(table)
        past = self._past.meet_images(table)
        todo = self._take_stock(past, staged, done=staged.same)
        self.num_images += int(todo.sum())
        late, work = _split(table, {}, todo, staged)
        self._late += Work(images=late)
        return Work(images=work)

    def _shards(self, table: pa.Table) -> Work:
        staged = self._staged.meet_shards(table)
        past = self._past.meet_shards(table)
        # The last row of a shard may have been committed before earlier ones.
        whole = np.array([self._closed_shards.get(uri, -1) for uri in table["uri"].to_pylist()])
        done = staged.same & (staged.rows == whole)
        todo = self._take_stock(past, staged, done)
        self.counts.shards += int(todo.sum())
        self.shard_images.add(table.filter(pa.array(todo)))
        is_kept = past.same & ~todo
        self.shard_images.learn(table.filter(pa.array(is_kept)), past.rows[is_kept])
        begun = table["uri"].filter(pa.array(staged.same & todo)).to_pylist()
        members = self._open_run.members_done(set(begun))
        for uri in table["uri"].filter(pa.array(todo)).to_pylist():
            self._members_done[uri] = len(members.get(uri, ()))
        late, work = _split(table, members, todo, staged)
        self._late += Work(shards=late)
        return Work(shards=work)

    def _take_stock(self, past: Matches, staged: Matches, done: Mask) -> Mask:
        """Count the listed objects by what they are; true where there is work."""
        retried = past.failures[:, self._retry].any(axis=1)
        kept = past.same & ~retried & ~staged.same
        todo: Mask = ~done & ~kept
        self.counts.new += int((todo & ~past.known).sum())
        self.counts.changed += int((todo & past.known & ~past.same).sum())
        self.counts.retried += int((todo & past.same).sum())
        self.counts.unchanged += int(past.rows[kept].sum())
        self.counts.finished += int(staged.rows[staged.same].sum())
        failed = zip(self._past.ledger.codes, past.failures[kept].sum(axis=0), strict=True)
        self.counts.failed_before.update({code: int(number) for code, number in failed if number})
        return todo


def _split(
    listing: pa.Table, members_done: dict[str, list[str]], todo: Mask, staged: Matches
) -> tuple[tuple[pa.Table, ...], tuple[pa.Table, ...]]:
    """What has to wait until rows of another version are dropped, and what can be done at once."""
    stale = staged.known & ~staged.same
    chosen = (todo & mask for mask in (stale, ~stale))
    late, work = (
        (_work(listing.filter(pa.array(some)), members_done),) if some.any() else ()
        for some in chosen
    )
    return late, work


def _work(listing: pa.Table, members_done: dict[str, list[str]]) -> pa.Table:
    listing = Keys.detach(listing)
    done = [members_done.get(uri) for uri in listing["uri"].to_pylist()] if members_done else None
    column = pa.array(done or [None] * listing.num_rows, pa.list_(pa.string()))
    schema = pa.schema([*listing.schema, WORK.field("_done")])
    return listing.append_column("_done", column).cast(schema)
