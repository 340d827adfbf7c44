"""Filesystems by URI, and the settings that travel with tasks to the workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import fsspec.config
from botocore.exceptions import BotoCoreError
from fsspec.spec import AbstractFileSystem

from pipeline.contract.errors import UsageError, one_line
from pipeline.storage.objects.azure.blobs import AzureBlobs
from pipeline.storage.objects.filesystem import ObjectFileSystem
from pipeline.storage.objects.google.objects import GoogleObjects
from pipeline.storage.objects.s3.access import access, is_signed_here, portable_settings
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
_S3FS_TRIES = 2
"""On top of botocore's; with s3fs' own five, a server that hangs would cost ten minutes."""


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
        os.environ.update(self.variables)
        fsspec.config.conf.update(deepcopy(dict(self.fsspec_config)))


def filesystem(protocol: str) -> AbstractFileSystem:
    """The fsspec filesystem of a protocol, configured by the environment alone.

    Raises:
        UsageError: fsspec does not know the protocol, or its package is not installed.
    """
    if store := _OBJECT_STORES.get(protocol):
        if find_spec(store.package) is None:
            needed = f"pip install 'cvt-batch[{store.extra}]'"
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


def open_binary(uri: str) -> Any:
    """A local file or an object, open for reading; the caller closes it.

    Raises:
        UsageError: fsspec does not know the protocol, or its package is not installed.
        OSError: the storage failed.
    """
    protocol, path = split_uri(uri)
    if protocol == "file":
        return open(local_path(path), "rb")
    return filesystem(protocol).open(path, "rb")


STORAGE_ERRORS = (OSError, BotoCoreError)
