"""Local disks and object stores behind one set of operations."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec.spec import AbstractFileSystem

from pipeline.contract.errors import DamagedFileError, one_line
from pipeline.contract.records import Record, parsed
from pipeline.storage.filesystems import (
    UNSUPPORTED,
    Write,
    filesystem,
    refusal_of_credentials,
    whole,
    write_through,
    write_to_end,
)
from pipeline.storage.objects.s3 import objects
from pipeline.storage.objects.s3.refusals import is_full, told
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.uris import join_uri, split_uri

R = TypeVar("R", bound=Record)
MOST_RECORD_BYTES = 64 * 2**20
"""A manifest, which names its files and some thousand vanished images, has a hundredth."""


def _temporary(target: Path) -> Path:
    """A name beside the target that nobody else uses and that ``Store.list`` leaves out."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _move_one_by_one(source: Path, target: Path) -> None:
    """For disks that rename files only; if interrupted, the same call goes on."""
    for path in sorted(source.rglob("*")):
        if not path.is_dir():
            moved = target / path.relative_to(source)
            moved.parent.mkdir(parents=True, exist_ok=True)
            path.replace(moved)
    shutil.rmtree(source)


@dataclass(frozen=True)
class Store:
    """The output root. Names are relative to it, with forward slashes.

    Every write is atomic: on local disks a temporary name, fsync and rename; on object stores a
    single PUT, which is visible only once it is complete.
    """

    uri: str

    @property
    def protocol(self) -> str:
        return split_uri(self.uri)[0]

    @property
    def fs(self) -> AbstractFileSystem:
        return filesystem(self.protocol)

    @property
    def is_local(self) -> bool:
        return self.protocol == "file"

    def path(self, name: str = "") -> str:
        """The path of ``name`` as its filesystem knows it."""
        stripped = split_uri(self.uri)[1] if self.is_local else self.fs._strip_protocol(self.uri)
        root = str(stripped).rstrip("/")
        return f"{root}/{name}" if name else root

    def locate(self, name: str) -> str:
        """The URI of ``name``, as a person would type it."""
        protocol, root = split_uri(self.uri)
        return f"{join_uri(protocol, root.rstrip('/'))}/{name}"

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def list(self, directory: str, *, or_itself: bool = False) -> dict[str, int]:
        """Names below a directory, recursively, with their sizes in bytes, in order of name; with
        ``or_itself``, also that of a file, after which object stores have to be asked, too."""
        start = len(self.path()) + 1
        found = self._find(self.path(directory), or_itself=or_itself)
        sizes = {path[start:]: size for path, size in found.items()}
        return {name: sizes[name] for name in sorted(sizes) if not name.endswith((".tmp", "/"))}

    def _find(self, path: str, *, or_itself: bool) -> dict[str, int]:
        sizes = objects.sizes(path, or_itself=or_itself) if self.protocol == "s3" else None
        if sizes is not None:
            return sizes
        try:
            found = self.fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        # Some object stores show a prefix for a moment after the last delete below it.
        return {p: int(i["size"] or 0) for p, i in found.items() if i["type"] == "file"}

    def read_bytes(self, name: str) -> bytes:
        with self._clear_errors():
            data = objects.read(self.path(name)) if self.protocol == "s3" else None
            return self.fs.cat_file(self.path(name)) if data is None else data

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Those that users can do something about say what."""
        try:
            yield
        except OSError as error:
            if is_full(error):
                text = f"{self.uri} is full, make room there ({one_line(error)})"
                raise OSError(errno.ENOSPC, text) from error
            is_denied = isinstance(error, PermissionError) and not self.is_local
            if is_denied and (reason := refusal_of_credentials(self.uri)):
                raise PermissionError(reason) from error  # an answer to HEAD gives none
            raise

    def read_json(self, name: str) -> Any:
        """The parsed file, or None when there is none."""
        try:
            return parsed(self.read_bytes(name))
        except FileNotFoundError:
            return None

    def read_record(self, kind: type[R], name: str) -> R | None:
        """The JSON file as a record, or None when there is none.

        Raises:
            DamagedFileError: it does not hold such a record.
        """
        try:
            self._check_record(name)
            return kind.from_json(self.read_bytes(name), self.locate(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _check_record(self, name: str) -> None:
        """Refuse a file that is far larger than any record, before it is read; objects are not
        asked for their size, which would take a request each."""
        if self.is_local and os.path.getsize(self.path(name)) > MOST_RECORD_BYTES:
            raise DamagedFileError(
                f"{self.locate(name)} is damaged: it has more than {MOST_RECORD_BYTES} bytes; "
                "restore or remove it"
            )

    def write_bytes(self, name: str, data: bytes) -> None:
        with self._clear_errors():
            if not self.is_local:
                self.fs.pipe_file(self.path(name), data, **whole(self.protocol))
                return
            target = Path(self.path(name))
            temporary = _temporary(target)
            write_through(temporary, lambda file: file.write(data))
            temporary.replace(target)

    def write_by(self, write: Write, name: str, half: str) -> None:
        """Write a file of a local disk without ever holding it in memory.

        Args:
            write: writes it into a file, piece by piece.
            half: its name until it is whole, which stays if this process is killed.
        """
        with self._clear_errors():
            write_through(Path(self.path(half)), write)
            self._rename(Path(self.path(half)), Path(self.path(name)))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, self.json_bytes(value))

    @staticmethod
    def json_bytes(value: Any) -> bytes:
        """Text that is not valid Unicode, such as names of files on old disks, comes back as it
        was: JSON escapes it as Python does."""
        text = json.dumps(value, indent=2, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that does not exist yet, or leave the one that does.

        Returns:
            Whether what stands there afterwards, as a whole, is the first that was written. Some
            object stores overwrite it nevertheless, and some disks show a part of it: wait, and
            read back who won.
        """
        with self._clear_errors():
            if self.is_local:
                return self._link(Path(self.path(name)), data)
            try:
                self.fs.pipe_file(self.path(name), data, mode="create")
            except FileExistsError:
                pass
            except OSError as error:  # s3fs knows only some spellings of 412 Precondition Failed
                if told(error)[0] not in (409, 412):
                    raise
            return False

    @staticmethod
    def _link(target: Path, data: bytes) -> bool:
        temporary = _temporary(target)
        write_through(temporary, lambda file: file.write(data))
        try:
            target.hardlink_to(temporary)
        except FileExistsError:
            return True
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return True
        finally:
            temporary.unlink()
        with suppress(FileExistsError):
            write_to_end(target.open("xb"), lambda file: file.write(data))
        return False

    def move(self, source: str, target: str, names: Iterable[str] | None = None) -> None:
        """Move a file or a directory: a local directory in one step, objects each for itself, some
        at a time, so that after an interruption the same call finishes the move.

        Args:
            source: what to move.
            target: its name afterwards.
            names: of the files in a directory, if known: object stores then move these, whatever
                their listing, which may lag behind, leaves out or still names.
        """
        if self.is_local:
            with self._clear_errors():
                self._rename(Path(self.path(source)), Path(self.path(target)))
            return
        known = None if names is None else [f"{source}/{name}" for name in names]
        moved = self.list(source, or_itself=True) if known is None else known
        for _ in map_ahead(lambda name: self._move_one(name, target + name[len(source) :]), moved):
            pass

    def _move_one(self, source: str, target: str) -> None:
        try:
            with self._clear_errors():
                self.fs.cp_file(self.path(source), self.path(target))
        except FileNotFoundError:
            if not self.exists(target):
                raise
            return  # an earlier attempt has moved it
        self.fs.rm_file(self.path(source))

    @staticmethod
    def _rename(source: Path, target: Path) -> None:
        if not source.exists() and target.exists():
            return  # an earlier attempt has moved it
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.replace(target)
        except OSError as error:
            # ENOTEMPTY: somebody has left something at the target.
            if error.errno not in {*UNSUPPORTED, errno.ENOTEMPTY} or not source.is_dir():
                raise
            _move_one_by_one(source, target)

    def remove(self, name: str) -> None:
        """Remove a file or everything below a directory, if there is any."""
        if not self.is_local:
            self.clear(name, self.list(name, or_itself=True))
        elif (path := Path(self.path(name))).is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def clear(self, directory: str, names: Iterable[str] | None = None) -> None:
        """Remove all that is below a directory; from object stores only these files, if given."""
        if self.is_local:
            self.remove(directory)
            return
        for _ in map_ahead(self.remove_file, self.list(directory) if names is None else names):
            pass

    def remove_file(self, name: str) -> None:
        """Remove a file, if it is there; unlike ``remove``, without asking a listing for it."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def children(self, prefix: str) -> Iterator[str]:
        """The last components of what lies directly below ``prefix``, in order of name."""
        path = self.path(prefix)
        try:
            entries = self.fs.ls(path, detail=False)
        except FileNotFoundError:
            return
        for entry in sorted(entries):
            name = entry.rstrip("/").rsplit("/", 1)[-1]
            if name != path.rsplit("/", 1)[-1]:
                yield name
