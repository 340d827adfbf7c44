"""``OUT/corrections/``: files that are added, and never changed.

Whoever adds one needs no lease: its name has the hash of what it says, so that two people disturb
neither each other nor a run, and the same file twice is there once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipeline.contract import layout
from pipeline.contract.corrections import (
    Correction,
    moment,
    newest,
    read_corrections,
    write_corrections,
)
from pipeline.contract.errors import DamagedFileError, UsageError, one_line
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

CLOCKS_DIFFER = timedelta(days=1)
"""By how much the clock of a reviewer may be ahead; later decisions could never be overruled."""


@dataclass(frozen=True)
class Added:
    """What became of corrections that were to be added."""

    name: str
    """The file below OUT that has them."""
    is_new: bool
    """False if the same ones were added before."""


def add(store: Store, corrections: Sequence[Correction], now: datetime) -> Added:
    """Add a file with these corrections. Those that do not say when they were made get ``now``.

    Raises:
        UsageError: there is none, or one is of the future.
    """
    if not corrections:
        raise UsageError("there is no correction in it; nothing was added")
    latest = moment(now + CLOCKS_DIFFER)
    if late := next((one for one in corrections if one.when > latest), None):
        raise UsageError(
            f"{one_line(late.uri, 150)} was corrected at {late.when}, which is yet to come; set "
            "the clock there, and the time in the file"
        )
    digest = hashlib.sha256(write_corrections(corrections)).hexdigest()[:16]
    for name in files(store):
        if name.endswith(f"-{digest}.csv"):
            return Added(name, is_new=False)
    dated = [one if one.when else replace(one, when=moment(now)) for one in corrections]
    name = layout.correction_file(f"{now:%Y%m%dT%H%M%SZ}", digest)
    store.write_bytes(name, write_corrections(dated))
    return Added(name, is_new=True)


def files(store: Store) -> list[str]:
    """The names of the files of an output, in the order in which they count."""
    return [name for name in store.list(layout.CORRECTIONS) if layout.is_correction_file(name)]


def load(store: Store) -> list[Correction]:
    """All corrections of an output, in the order of their files.

    Raises:
        DamagedFileError: a file is not whole, or holds what no reviewer would say; the message
            names file, line and cause.
    """
    found: list[Correction] = []
    for some in map_ahead(lambda name: _read(store, name), files(store)):
        found += some
    return found


def load_whole(store: Store) -> tuple[list[Correction], list[str]]:
    """The corrections in the files that are whole, and what is wrong with the others, in one line
    each: for a run, which is not to fail because of them."""
    found: list[Correction] = []
    damaged: list[str] = []

    def read(name: str) -> list[Correction] | str:
        try:
            return _read(store, name)
        except DamagedFileError as error:
            return str(error)

    for some in map_ahead(read, files(store)):
        if isinstance(some, str):
            damaged.append(some)
        else:
            found += some
    return found, damaged


def standing(store: Store) -> dict[str, Correction]:
    """The correction that counts for each image, by URI.

    Raises:
        DamagedFileError: as ``load`` does.
    """
    return newest(load(store))


def carry_over(source: Store, target: Store, renamed: Mapping[str, str]) -> None:
    """Give an output the corrections of another one. It can be repeated.

    Args:
        renamed: new names of classes by the old ones.

    Raises:
        DamagedFileError: as ``load`` does.
    """

    def carry(name: str) -> None:
        target.write_bytes(name, write_corrections(_rename(_read(source, name), renamed)))

    for _ in map_ahead(carry, files(source)):
        pass


def _rename(some: Iterable[Correction], renamed: Mapping[str, str]) -> list[Correction]:
    def new(name: str) -> str:
        return renamed.get(name, name)

    return [replace(one, label=new(one.label), proposed=new(one.proposed)) for one in some]


def _read(store: Store, name: str) -> list[Correction]:
    try:
        return read_corrections(store.read_bytes(name), store.locate(name))
    except UsageError as error:
        raise DamagedFileError(f"{error.args[0]}; repair the file, or take it away") from error
