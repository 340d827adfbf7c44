"""Closed runs: what the output already holds, and whether a new run may join it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError, UsageError, one_line
from pipeline.contract.manifest import Latest, Manifest
from pipeline.contract.provenance import Identity
from pipeline.contract.urls import public
from pipeline.output.identity import check_identity
from pipeline.output.ledger.hashes import ALL, HashIndex, HashRange, ShardNames, hash_strings
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.ledger.rolling import Each, Rolling
from pipeline.storage.read_ahead import map_ahead, together
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical, printable


@dataclass(frozen=True)
class History:
    """The live runs: the newest ``--full`` run and all that closed after it, newest first."""

    store: Store
    runs: tuple[Manifest, ...]
    rolling: Rolling = field(default_factory=Rolling)
    """What the last closing kept of them, so that they need not be read one by one."""
    listed: Mapping[str, int] | None = None
    """The sizes of data files by name, if they have been listed since the lease was taken."""

    @classmethod
    def load(cls, store: Store, until: str | None = None, *, for_rows: bool = False) -> History:
        """Read the manifests.

        Args:
            until: the run after which later ones are left out, as if they had not been yet.
            for_rows: list the data files meanwhile, since their rows are going to be looked up.

        Raises:
            DamagedFileError: one of them is not what a run wrote.
        """
        children, latest, (rolling, newest), listed = together(
            lambda: list(store.children(layout.RUNS)),
            partial(_latest, store),
            partial(_kept, store),
            lambda: store.list(layout.DATA) if for_rows else None,
        )
        run_ids = {*children, *latest}
        runs = tuple(_live_runs(store, rolling, newest, run_ids, until))
        return cls(store, runs, rolling, listed)

    @classmethod
    def ending_with(cls, store: Store, newest: Manifest, known: History | None = None) -> History:
        """The history of which a run that has just closed is the end; ``known`` is that of before,
        if it has been read already, before the files of the newest were shown."""
        if newest.is_full:
            return cls(store, (newest,))
        found = known or cls.load(store, for_rows=True)
        earlier = (run for run in found.runs if run.run_id != newest.run_id)
        listed = found.listed
        if known and listed is not None and newest.files:
            listed = {**listed, **store.list(layout.data_dir(newest.run_id))}
        return cls(store, (newest, *earlier), found.rolling, listed)

    def sizes(self) -> Mapping[str, int]:
        """Of data files in bytes, by name."""
        return self.store.list(layout.DATA) if self.listed is None else self.listed

    @property
    def nights(self) -> tuple[Manifest, ...]:
        """The runs that computed the rows, newest first; of a compaction, those that it names."""
        return tuple(night for run in self.runs for night in run.compacted or (run,))

    @property
    def run_ids(self) -> list[str]:
        """Of the live runs, newest first."""
        return [run.run_id for run in self.runs]

    @property
    def files(self) -> list[str]:
        """The files with the live rows, in whose order the first row of a URI is its newest."""
        return [name for run in self.runs for name in run.file_names]

    def keep(self, each: Each = map) -> History:
        """Keep what the next run has to know, for it to read at once, and return the history that
        reads it; to be called by whoever holds the lease.

        Args:
            each: where the hashes of large files are written.
        """
        rolling = self.rolling.roll_on(self.store, self.runs, self.sizes(), each)
        return replace(self, rolling=rolling)

    @property
    def has_hashes(self) -> bool:
        """Whether no data file needs to be read for the ledger."""
        return self.rolling.covers(self.runs, self.sizes())

    @property
    def rows(self) -> int:
        """Of all live runs, as far as their manifests say."""
        return sum(file.rows for run in self.runs for file in run.files)

    def ledger(self, names: ShardNames, part: HashRange = ALL) -> Ledger:
        """An index over the live rows, or over those of a range of hashes."""
        with _files_of_closed_runs():
            rows = self.rolling.rows(self.store, self.runs, self.sizes(), names, part)
            return Ledger.from_hashed(rows, names)

    def vanished(
        self, gone: HashIndex, inputs: Sequence[str] | None, each: Each = map
    ) -> list[str]:
        """The URIs of live rows that are in the index and came from these INPUTs: from a run over
        the same ones (a list names images anywhere), or from below one of them. With None, from
        anywhere.

        Args:
            each: where large files are searched.
        """
        if not len(gone.keys):
            return []
        roots = ("",) if inputs is None else tuple(_root(uri) for uri in inputs)
        ours = tuple(map(public, inputs or ()))
        is_of_ours = [run.inputs == ours for run in self.runs]
        with _files_of_closed_runs():
            found = self.rolling.named(self.store, self.runs, self.sizes(), gone, each)
            names = {uri for age, uri in found if is_of_ours[age] or uri.startswith(roots)}
        return sorted(names)

    def known(self, uris: Set[str]) -> set[str]:
        """Those of the URIs of which there are live rows."""
        hashes = hash_strings(pa.chunked_array([pa.array(uris, pa.string())]))
        with _files_of_closed_runs():
            wanted = HashIndex(np.unique(hashes))
            found = self.rolling.named(self.store, self.runs, self.sizes(), wanted, map)
            return {uri for _, uri in found if uri in uris}

    def check(self, identity: Identity, advice: str | None = None) -> None:
        """Refuse to mix numbers of different models, or rows of different columns.

        Args:
            advice: the end of the message, if not ``CLOSED_ADVICE``.

        Raises:
            UsageError: they differ; the message shows the differing settings side by side.
        """
        for run in self.runs:
            whose = f"the closed run {run.run_id}"
            check_identity(identity, run.identity, whose, advice or CLOSED_ADVICE)


CLOSED_ADVICE = (
    "<policy.full> redoes everything with the new settings, <policy.allow_mixed> keeps both"
)


@contextmanager
def _files_of_closed_runs() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(
            f"a file of a closed run is gone ({one_line(error)}); "
            "restore it, or do everything again with <policy.full>"
        ) from error


def _root(uri: str) -> str:
    """The prefix of every URI under an INPUT."""
    return printable(canonical(uri)).split("*")[0].split("?")[0]


def _kept(store: Store) -> tuple[Rolling, Manifest | None]:
    """What was kept of all runs, and the newest of these from its own file, if that is whole."""
    rolling = Rolling.load(store)
    if not rolling.runs:
        return rolling, None
    with suppress(DamagedFileError):
        return rolling, store.read_record(Manifest, layout.manifest_file(rolling.runs[0].run_id))
    return rolling, None


def _live_runs(
    store: Store, rolling: Rolling, newest: Manifest | None, listed: Set[str], until: str | None
) -> Iterator[Manifest]:
    """Those that were kept, and from their own files the others and the newest, so that what was
    kept of another output, copied over this one, is not taken for its own.

    Args:
        newest: of those that were kept, from its own file, as far as that has been read.
    """
    known = [run_id for run_id in filter(layout.is_run_id, listed) if run_id <= (until or run_id)]
    run_ids = sorted(known, reverse=True)
    kept = {run.run_id: run for run in rolling.runs}
    is_first = True

    def read(run_id: str) -> Manifest | None:
        if run_id in kept and not is_first:
            return kept[run_id]
        if newest is not None and newest.run_id == run_id:
            return newest
        return store.read_record(Manifest, layout.manifest_file(run_id))

    manifests: Iterator[Manifest | None]
    manifests = map(read, run_ids) if kept else map_ahead(read, run_ids)
    for manifest in manifests:
        if manifest is not None:
            is_first = False
            yield manifest
            if manifest.is_full:
                return


def _latest(store: Store) -> list[str]:
    """The ID of the last closed run, as far as that is known: a listing may lag behind."""
    with suppress(DamagedFileError):
        latest = store.read_record(Latest, layout.LATEST)
        return [latest.run_id] if latest else []
    return []
