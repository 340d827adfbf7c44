"""Closed runs: what the output already holds, and whether a new run may join it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError, UsageError, one_line
from pipeline.contract.manifest import Latest, Manifest
from pipeline.contract.provenance import Identity
from pipeline.contract.urls import public
from pipeline.output.identity import check_identity, check_same
from pipeline.output.ledger import LEDGER_COLUMNS, HashIndex, Ledger, ShardNames, hash_strings
from pipeline.output.open_run import OpenRun
from pipeline.storage.parquet import read_columns
from pipeline.storage.store import Store
from pipeline.storage.uris import join_uri, printable, split_uri


@dataclass(frozen=True)
class History:
    """The live runs: the newest ``--full`` run and all that closed after it, newest first."""

    store: Store
    runs: tuple[Manifest, ...]

    @classmethod
    def load(cls, store: Store, until: str | None = None) -> History:
        """Read the manifests.

        Args:
            until: the run after which later ones are left out, as if they had not been yet.

        Raises:
            DamagedFileError: one of them is not what a run wrote.
        """
        return cls(store, tuple(_live_runs(store, until)))

    def ledger(self, names: ShardNames) -> Ledger:
        """An index over the live rows."""
        return Ledger.from_runs(map(self._tables, self.runs), names)

    def _tables(self, run: Manifest) -> Iterator[pa.Table]:
        try:
            yield from read_columns(self.store, run.file_names, LEDGER_COLUMNS)
        except FileNotFoundError as error:
            raise UsageError(
                f"a file of the closed run {run.run_id} is gone ({one_line(error)}); "
                "restore it, or do everything again with <policy.full>"
            ) from error

    def vanished(self, gone: HashIndex, inputs: Sequence[str] | None) -> list[str]:
        """The URIs of live rows that are in the index and came from these INPUTs: from a run over
        the same ones (a list names images anywhere), or from below one of them. With None, from
        anywhere."""
        names: set[str] = set()
        roots = ("",) if inputs is None else tuple(_root(uri) for uri in inputs)
        for run in self.runs if len(gone.keys) else ():
            below = ("",) if run.inputs == tuple(map(public, inputs or ())) else roots
            for table in read_columns(self.store, run.file_names, ["uri"]):
                found, _ = gone.find(hash_strings(table["uri"]))
                uris = table["uri"].filter(pa.array(found)).to_pylist()
                names.update(uri for uri in uris if uri.startswith(below))
        return sorted(names)

    def check(self, identity: Identity) -> None:
        """Refuse to mix numbers of different models, or rows of different columns.

        Raises:
            UsageError: they differ; the message shows the differing settings side by side.
        """
        for run in self.runs:
            check_identity(identity, run.identity, f"the closed run {run.run_id}", _CLOSED_ADVICE)


_CLOSED_ADVICE = (
    "<policy.full> redoes everything with the new settings, <policy.allow_mixed> keeps both"
)
_OPEN_ADVICE = "finish it with its own settings, or start over with <policy.discard_open_run>"


def _root(uri: str) -> str:
    """The prefix of every URI under an INPUT."""
    return printable(join_uri(*split_uri(uri))).split("*")[0].split("?")[0]


def _live_runs(store: Store, until: str | None) -> Iterator[Manifest]:
    listed = {*store.children(layout.RUNS), *_latest(store)}
    for run_id in sorted(filter(layout.is_run_id, listed), reverse=True):
        if until is not None and run_id > until:
            continue
        manifest = store.read_record(Manifest, layout.manifest_file(run_id))
        if manifest is not None:
            yield manifest
            if manifest.is_full:
                return


def _latest(store: Store) -> list[str]:
    """The ID of the last closed run, as far as that is known: a listing may lag behind."""
    with suppress(DamagedFileError):
        latest = store.read_record(Latest, layout.LATEST)
        return [latest.run_id] if latest else []
    return []


def check_open_run(run: OpenRun, identity: Identity, inputs: dict[str, Any]) -> None:
    """Only the command that began an open run may finish it.

    Raises:
        UsageError: the settings or the inputs differ.
    """
    ours = {**identity.to_dict(), "inputs": inputs}
    theirs = {**run.record.identity.to_dict(), "inputs": run.record.inputs}
    check_same(ours, theirs, f"the unfinished run {run.run_id}", _OPEN_ADVICE)
