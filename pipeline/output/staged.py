"""Merged files before they are published: whole, and seen by nobody.

    on S3       all parts of an upload under the final name are sent; to publish completes it, by
                one small request, and copies nothing
    elsewhere   below publish/data/, from where it is moved; on a local disk it is beside the
                directory that is moved as long as it is not whole

What was staged and is not published is withdrawn: on S3 it would stay for ever, paid for and in no
listing of objects. An upload that nobody has recorded is found in the bucket's listing of uploads.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pipeline.contract import layout
from pipeline.contract.errors import one_line
from pipeline.contract.records import Record
from pipeline.storage.objects.s3.uploads import Sending, Upload, abort, complete, unfinished
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Uploads(Record):
    """``publish/uploads.json``."""

    files: Mapping[str, Upload] = field(default_factory=dict)
    """By the name that the file will have below the output."""


def stage(store: Store, name: str, aside: str, write: Callable[[Any], None]) -> Upload | None:
    """Write a file that will be published.

    Args:
        name: which it will have.
        aside: which it has meanwhile where the store takes no uploads in parts.
        write: writes it into a file.

    Returns:
        What completes it; None if it stands aside.
    """
    if store.is_local:
        directory = aside.rpartition("/")[0]
        store.write_by(write, aside, f"{directory}.{secrets.token_hex(4)}.tmp")
        return None
    sending = _sending(store, name)
    if sending is None:
        file = BytesIO()
        write(file)
        store.write_bytes(aside, file.getvalue())
        return None
    try:
        write(sending)
        return sending.finish()
    except BaseException:
        _forget(sending.path, sending.id)
        raise


def _sending(store: Store, name: str) -> Sending | None:
    if store.protocol != "s3":
        return None
    try:
        return Sending(store.path(name))
    except OSError as error:
        log.warning("publishing by copies, for %s takes no uploads in parts: %s", store.uri, error)
        return None


def show(store: Store, names: Iterable[str], uploads: Uploads) -> None:
    """Complete the uploads of these files, some at a time. Safe to repeat.

    Raises:
        FileNotFoundError: one of them is gone, and its file not there.
    """
    for _ in map_ahead(lambda name: complete(store.path(name), uploads.files[name]), names):
        pass


def withdraw(store: Store, directory: str = layout.DATA) -> None:
    """Abort all uploads of data files to below a directory; to be called by whoever holds the
    lease. What cannot be aborted is no reason to stop."""
    if store.protocol != "s3":
        return
    start = len(store.path()) + 1
    try:
        found = {upload_id: path for path, upload_id in unfinished(store.path(directory))}
    except OSError as error:
        log.warning(
            "uploads that broke off may lie below %s, which cannot be listed (%s); a lifecycle "
            "rule of the bucket removes them (AbortIncompleteMultipartUpload)",
            store.locate(directory),
            one_line(error),
        )
        return
    ours = (one for one, path in found.items() if layout.is_data_file(path[start:]))
    for _ in map_ahead(lambda upload_id: _forget(found[upload_id], upload_id), ours):
        pass


def _forget(path: str, upload_id: str) -> None:
    try:
        abort(path, upload_id)
    except OSError as error:
        log.warning("the upload to s3://%s is not aborted: %s", path, one_line(error))
