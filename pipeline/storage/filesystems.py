"""Filesystems by URI, and the settings that travel with tasks to the workers."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, BinaryIO

import fsspec.config
from botocore.exceptions import BotoCoreError
from fsspec.spec import AbstractFileSystem

from pipeline.contract.errors import UsageError, one_line
from pipeline.storage.objects.azure.blobs import AzureBlobs
from pipeline.storage.objects.filesystem import ObjectFileSystem
from pipeline.storage.objects.google.objects import GoogleObjects
from pipeline.storage.objects.s3.access import access, is_signed_here, portable_settings
from pipeline.storage.objects.s3.requests import answers as s3_answers
from pipeline.storage.objects.s3.requests import refusal_of_credentials as s3_refusal
from pipeline.storage.uris import local_path, split_uri

_ENVIRONMENT_PREFIXES = ("AWS_", "FSSPEC_", "GOOGLE_", "GCSFS_", "STORAGE_EMULATOR_", "AZURE_",
                         "HF_", "RAY_DATA_")  # fmt: skip
_ENVIRONMENT_NAMES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
)
_MADE_UP = frozenset({
    "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs",
    "fusectl", "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
})  # fmt: skip
"""Linux' filesystems whose files the kernel makes up."""
_MOST_BYTES_OF_A_PUT = 5 * 2**30
"""Says S3."""
_S3FS_TRIES = 2
"""On top of botocore's; with s3fs' own five, a server that hangs would cost ten minutes."""
UNSUPPORTED = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS,
                          errno.EMLINK, errno.EXDEV, errno.EINVAL, errno.EACCES))  # fmt: skip
"""How filesystems without hard links (FAT, many of FUSE), without fsync or without renames of
directories say so; a wrong guess fails in the step that is tried instead."""

Write = Callable[[IO[bytes]], object]
"""Writes into a file."""


_STORES: tuple[ObjectFileSystem, ...] = (AzureBlobs(), GoogleObjects())
_OBJECT_STORES = {protocol: store for store in _STORES for protocol in store.protocol}


@dataclass(frozen=True)
class WorkerEnvironment:
    """The storage settings of the driver, to be set on every worker.

    Credentials never appear in a repr, a log line or the manifest; they travel only inside the
    serialised task.
    """

    variables: Mapping[str, str] = field(repr=False)
    fsspec_config: Mapping[str, dict[str, Any]] = field(repr=False, default_factory=dict)
    """By protocol."""

    @classmethod
    def capture(cls) -> WorkerEnvironment:
        """What the driver's environment, AWS profile and fsspec configuration say about storage."""
        names = (
            name
            for name in os.environ
            if name.startswith(_ENVIRONMENT_PREFIXES) or name.upper() in _ENVIRONMENT_NAMES
        )
        portable = portable_settings()
        variables = portable | {name: os.environ[name] for name in names}
        if "AWS_ACCESS_KEY_ID" in portable:
            variables.pop("AWS_PROFILE", None)  # would fail on a worker that lacks it
        config = deepcopy(fsspec.config.conf)
        if (is_signed := is_signed_here()) is not None:  # workers must agree
            config.setdefault("s3", {})["anon"] = not is_signed
        return cls(variables, config)

    def apply(self) -> None:
        """Make this process see the storage as the driver does."""
        change_environment(self.variables)
        fsspec.config.conf.update(deepcopy(dict(self.fsspec_config)))


def change_environment(variables: Mapping[str, str]) -> None:
    """Set the variables that differ: what stands in the environment already is not written again,
    because native code may read it at the same time in another thread."""
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def filesystem(protocol: str) -> AbstractFileSystem:
    """The fsspec filesystem of a protocol, configured by the environment alone.

    Raises:
        UsageError: fsspec does not know the protocol, or its package is not installed.
    """
    if store := _OBJECT_STORES.get(protocol):
        if find_spec(store.package) is None:
            needed = f"pip install {store.package}"
            raise UsageError(f"cannot open {protocol}:// URIs without a package: {needed}")
        return store
    # fsspec caches instances by their options, so a changed option is not missed.
    options = access().s3fs_options() if protocol == "s3" else {}
    try:
        found = fsspec.filesystem(protocol, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(f"cannot open {protocol}:// URIs: {one_line(error)}") from error
    if protocol == "s3":
        found.retries = _S3FS_TRIES
    return found


def whole(protocol: str) -> dict[str, Any]:
    """Options with which ``pipe_file`` writes an object by one request, however large it is. What
    s3fs sends in parts would stay if it were killed: paid for, and in no listing of objects."""
    return {"chunksize": _MOST_BYTES_OF_A_PUT} if protocol == "s3" else {}


def refusal_of_credentials(uri: str) -> str | None:
    """Why the object store behind a URI refuses the credentials themselves; None if it does not, or
    has not been asked."""
    protocol, path = split_uri(uri)
    if protocol == "s3":
        return s3_refusal(path.partition("/")[0])
    store = _OBJECT_STORES.get(protocol)
    if store is None or find_spec(store.package) is None:
        return None
    return store.refusal_of_credentials(path)


def answers(uri: str) -> bool:
    """Whether the object store behind a URI answers this host at all, be it with a refusal; asked
    once. True for what is no object store, without a question."""
    protocol, path = split_uri(uri)
    if protocol == "s3":
        return s3_answers(path.partition("/")[0])
    store = _OBJECT_STORES.get(protocol)
    return store is None or store.answers(path)


def open_binary(uri: str) -> Any:
    """A local file or an object, open for reading; the caller closes it.

    Raises:
        UsageError: fsspec does not know the protocol, or its package is not installed.
        OSError: the storage failed.
    """
    protocol, path = split_uri(uri)
    if protocol == "file":
        return open_local(path)
    return filesystem(protocol).open(path, "rb")


def open_local(path: str) -> BinaryIO:
    """A local file, open for reading.

    Devices, pipes and sockets are never opened: that alone may wait for ever, or do something. Nor
    is what the system makes up when it is asked, such as the environment of a process.

    Raises:
        SpecialFileError: it is none that anybody stored.
        OSError: it cannot be opened.
    """
    try:
        name = local_path(path)
        _check_ordinary(os.stat(name))
    except ValueError as error:
        raise FileNotFoundError(f"no file can have this name: {one_line(error)}") from error
    file = os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    try:
        _check_ordinary(os.fstat(file.fileno()))  # it may be another one by now
    except SpecialFileError:
        file.close()
        raise
    return file


def write_through(path: Path, write: Write) -> None:
    """Write a local file, and return once it is on disk: one that is renamed afterwards survives a
    power failure either whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_to_end(path.open("wb"), write)
    except BaseException:
        with suppress(OSError):
            path.unlink()  # a half would take the room that is missing
        raise


def write_to_end(opened: IO[bytes], write: Write) -> None:
    """The same for one that is open."""
    with opened as file:
        write(file)
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:  # filesystems on a network may know no such thing
            if error.errno not in UNSUPPORTED:
                raise


class SpecialFileError(OSError):
    """A local name behind which there is no stored file."""


def _check_ordinary(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise SpecialFileError("a device, a pipe or a socket is no file to read")
    if is_made_up(status):
        raise SpecialFileError("a file of the operating system's own is no file to read")


def is_made_up(status: os.stat_result) -> bool:
    """Whether the system makes it up when it is asked, such as all below /proc."""
    return status.st_dev in _made_up_devices()


@cache
def _made_up_devices() -> frozenset[int]:
    """The device numbers of mounted filesystems whose files nobody stored; none where the system
    does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = set()
    for line in lines:  # 22 27 0:21 / /proc rw,nosuid - proc proc rw
        mount, _, source = line.partition(" - ")
        if source.partition(" ")[0] in _MADE_UP:
            major, minor = mount.split()[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


STORAGE_ERRORS = (OSError, BotoCoreError)
