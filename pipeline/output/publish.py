"""How a closed run becomes visible, by steps that can be repeated.

    _open/<id>/parts/*                 what the attempts committed
    _open/<id>/publish/data/<attempt>/part-*    merged, sorted by uri, sized for scans; on S3 these
    _open/<id>/publish/uploads.json    are in their place already, as uploads to be completed
    _open/<id>/publish/*               the report and the tables beside it
    _open/<id>/publish/manifest.json   with it the run is closed; only publishing is left
    data/run=<id>/, runs/<id>/, images.sql, current.json, latest.json, in this order
    history/                          for the next run

Whoever finds ``publish/manifest.json`` finishes the publication first. No
step asks a listing what there is to publish: that of an object store may lag
behind. A process that closed the run has it in memory, another reads it here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Self, TypeAlias

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import RunError, one_line
from pipeline.contract.manifest import Current, Latest, Manifest
from pipeline.output.corrections.live_view import write_view
from pipeline.output.ledger.history import History
from pipeline.output.ledger.rolling import Each
from pipeline.output.open_run import OpenRun
from pipeline.output.staged import Uploads, show
from pipeline.storage.parquet import table_bytes
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

Beside: TypeAlias = pa.Table | str | Sequence[str]
"""A file that stands beside a manifest: a table is written as Parquet, a text as it is, a list as
JSON."""


@dataclass(frozen=True)
class Sealed:
    """What closes a run, as it is written below ``publish/``."""

    manifest: Manifest
    written: bytes
    """The manifest's file."""
    beside: Mapping[str, bytes]
    """Further files, by name."""

    @classmethod
    def of(cls, run: OpenRun, written: bytes, beside: Mapping[str, bytes]) -> Self:
        """
        Raises:
            DamagedFileError: what was written is no manifest.
        """
        name = run.store.locate(layout.publish_manifest(run.run_id))
        return cls(Manifest.from_json(written, name), written, beside)

    @classmethod
    def read(cls, run: OpenRun) -> Self:
        """What an earlier attempt wrote.

        Raises:
            DamagedFileError: that is no manifest.
        """
        written = run.store.read_bytes(layout.publish_manifest(run.run_id))
        found = map_ahead(partial(_read_beside, run), layout.BESIDE)
        pairs = zip(layout.BESIDE, found, strict=True)
        return cls.of(run, written, {name: data for name, data in pairs if data is not None})


def seal(
    run: OpenRun,
    manifest: Manifest,
    report: str,
    beside: Mapping[str, Beside] = MappingProxyType({}),
) -> Sealed:
    """Write what goes beside the merged files; the manifest last, since it closes the run.

    Args:
        beside: further files by name.

    Raises:
        DamagedFileError: the manifest would not be read again; the run is not closed.
    """
    files = {name: _bytes_of(value) for name, value in {**beside, layout.REPORT: report}.items()}
    sealed = Sealed.of(run, run.store.json_bytes(manifest.to_dict()), files)
    _write_all(run.store, layout.publish_dir(run.run_id), files)
    run.store.write_bytes(layout.publish_manifest(run.run_id), sealed.written)
    return sealed


def _bytes_of(value: Beside) -> bytes:
    if isinstance(value, pa.Table):
        return table_bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace")
    return Store.json_bytes(list(value))


def _write_all(store: Store, directory: str, files: Mapping[str, bytes]) -> None:
    """Write files at the same time."""
    for _ in map_ahead(lambda name: store.write_bytes(f"{directory}/{name}", files[name]), files):
        pass


def is_closed(run: OpenRun) -> bool:
    """Whether only publishing is left to do."""
    return run.store.exists(layout.publish_manifest(run.run_id))


def _merged_dir(run: OpenRun, files: Set[str]) -> str:
    """Where the closing attempt merged the files. Earlier versions gave it no directory of its own,
    and may have been killed before they moved them."""
    common = layout.publish_data_dir(run.run_id, "")
    is_old = not files.isdisjoint(run.store.children(common))
    return common if is_old else layout.publish_data_dir(run.run_id, run.record.attempt)


def _show_files(run: OpenRun, names: Sequence[str]) -> None:
    """Make the data files visible.

    Raises:
        RunError: they are gone, and are to be merged again.
    """
    uploads = run.store.read_record(Uploads, layout.publish_uploads(run.run_id)) or Uploads()
    try:
        show(run.store, [name for name in names if name in uploads.files], uploads)
    except FileNotFoundError as error:
        _reopen(run)
        raise RunError(
            f"the merged files of run {run.run_id} are gone ({one_line(error)}), as if a rule of "
            "the bucket had aborted their uploads; start the same command again, which merges them "
            "anew"
        ) from error
    aside = [name.rpartition("/")[2] for name in names if name not in uploads.files]
    if aside:
        run.store.move(_merged_dir(run, set(aside)), layout.data_dir(run.run_id), aside)


def _reopen(run: OpenRun) -> None:
    """The run is as it was before its parts were merged; nobody has seen it in ``latest.json``."""
    run.store.remove_file(layout.publish_manifest(run.run_id))
    run.store.remove(layout.data_dir(run.run_id))


def _read_beside(run: OpenRun, name: str) -> bytes | None:
    """A small file that stands beside the manifest, if there is such a one."""
    with suppress(FileNotFoundError):
        return run.store.read_bytes(f"{layout.publish_dir(run.run_id)}/{name}")
    return None


def publish(
    run: OpenRun,
    each: Each = map,
    known: History | None = None,
    sealed: Sealed | None = None,
) -> Manifest:
    """Make a closed run visible, ``latest.json`` last, and return its manifest. Safe to repeat.

    Args:
        each: where the hashes of its files' rows are written, for the next run.
        known: the runs that it joins, if they have been read since the lease was taken.
        sealed: what closed it, if this process wrote that.

    Raises:
        RunError: it is open again.
    """
    store, run_id = run.store, run.run_id
    sealed = sealed or Sealed.read(run)
    manifest = sealed.manifest
    if manifest.files:
        _show_files(run, manifest.file_names)
    _write_all(store, layout.run_dir(run_id), sealed.beside)
    store.write_bytes(layout.manifest_file(run_id), sealed.written)
    if manifest.files:
        write_view(store)
    history = History.ending_with(store, manifest, known)
    store.write_json(layout.CURRENT, Current(run_id, tuple(history.files)).to_dict())
    latest = Latest(run_id, layout.manifest_file(run_id), manifest.counts)
    store.write_json(layout.LATEST, latest.to_dict())
    history.keep(each)
    run.discard()
    return manifest
