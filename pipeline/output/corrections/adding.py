"""Files that people give a command: read to the end, checked against the output, then added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.contract import layout
from pipeline.contract.corrections import Correction, read_corrections
from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.output.corrections import collected, label_studio
from pipeline.output.corrections.live_view import write_view
from pipeline.output.ledger.history import History
from pipeline.storage.filesystems import STORAGE_ERRORS, open_binary
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical

MOST_BYTES = 64 * 2**20
"""Of a file: a hundred thousand corrections have a third."""
_HEAD_BYTES = 1024
"""In which what is no white space begins."""


@dataclass(frozen=True)
class AddedFile:
    """What became of a file."""

    file: str
    name: str
    """Where it is below OUT."""
    is_new: bool
    corrections: int
    unknown: int
    """Corrections of images that the output does not have."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)

    def __str__(self) -> str:
        there = "added" if self.is_new else "there already"
        others = f", {self.unknown:,} of images that OUT does not have" if self.unknown else ""
        return f"{there}: {self.corrections:,} corrections of {self.file}{others}"


def output_at(uri: str) -> Store:
    """The output of earlier jobs.

    Raises:
        UsageError: it cannot be read, or there is none.
    """
    store = Store(canonical(uri))
    try:
        is_there = store.exists(layout.LATEST)
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot read {uri}: {one_line(error)}") from error
    if not is_there:
        raise UsageError(f"{uri} holds no closed run; name the output of an earlier job")
    return store


def add_files(store: Store, names: Sequence[str], now: datetime) -> list[AddedFile]:
    """Add what the files say; none of them, if one cannot be read, or is about other images.

    Raises:
        UsageError: nothing was added; the message says what to change.
        RunError: the storage failed; the same call adds the rest.
    """
    known = {name: read_file(name) for name in names}
    try:
        asked = {one.uri for some in known.values() for one in some}
        strange = asked - History.load(store).known(asked)
        counts = {name: _check_images(name, some, strange) for name, some in known.items()}
        added = {name: collected.add(store, some, now) for name, some in known.items()}
        write_view(store)  # that of an earlier version knows no corrections
    except STORAGE_ERRORS as error:
        raise RunError(
            f"adding corrections stopped: {one_line(error)}; start the same command again"
        ) from error
    return [
        AddedFile(name, one.name, one.is_new, len(known[name]), counts[name])
        for name, one in added.items()
    ]


def read_file(name: str, place: str = "corrections.add") -> list[Correction]:
    """What a file says: ``corrections.csv``, or a JSON export of Label Studio.

    Args:
        place: of the setting that named the file.

    Raises:
        UsageError: it cannot be read; the message says what is wrong, and in which line.
    """
    try:
        with open_binary(name) as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist; check <{place}>") from error
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot read <{place}> {name}: {one_line(error)}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{name} has more than {MOST_BYTES // 2**20} MiB; split it")
    if label_studio.begins_export(data) or data.lstrip().startswith(b"{"):
        return label_studio.read_export(data, name)
    return read_corrections(data, name)


def is_export(name: str) -> bool:
    """Whether a file is an export of Label Studio, by its first bytes.

    Raises:
        OSError: the storage failed.
    """
    with open_binary(name) as file:
        return label_studio.begins_export(file.read(_HEAD_BYTES))


def read_all(uri: str, place: str) -> list[Correction]:
    """What a file says, or all CSV files of a directory, in the order of their names.

    Args:
        place: of the setting that named it.

    Raises:
        UsageError: as ``read_file`` does.
    """
    store = Store(canonical(uri))
    try:
        names = [name for name in store.children("") if name.endswith(".csv")]
    except STORAGE_ERRORS:
        names = []  # it is a file, then, or its reading says what is wrong
    files = [store.locate(name) for name in names] or [uri]
    return [one for some in map_ahead(lambda name: read_file(name, place), files) for one in some]


def _check_images(name: str, some: Sequence[Correction], strange: set[str]) -> int:
    """How many of these corrections are of images that the output does not have; most must not."""
    others = [one.uri for one in some if one.uri in strange]
    if 2 * len(others) > len(some):
        raise UsageError(
            f"{len(others)} of {len(some)} corrections in {name} are of images that the output "
            f"does not have, such as {one_line(others[0], 150)}; a uri must be as it is there"
        )
    return len(others)
