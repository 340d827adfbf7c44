"""Blobs of Azure, each read and written by one request, and copies that are waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import urllib3

from pipeline.contract.errors import FetchError
from pipeline.storage.objects import filesystem
from pipeline.storage.objects.azure.access import Account, account
from pipeline.storage.objects.connection import (
    ExistsError,
    RefusedCredentialsError,
    content,
    insistently,
    refusal,
    send,
)
from pipeline.storage.objects.filesystem import ObjectFileSystem
from pipeline.storage.objects.listing.by_prefixes import Info, Page
from pipeline.storage.retry import PassingError, StoreError

COPY_SECONDS = 120.0
"""A copy that makes no progress for so long is given up."""
_COPY_PAUSE_SECONDS = 0.2
_PENDING = {"x-ms-copy-status": "pending"}
_BAD_CREDENTIALS = ("AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo",
                    "NoAuthenticationInformation", "AccountIsDisabled",
                    "KeyBasedAuthenticationNotPermitted")  # fmt: skip
_BUSY = ("ServerBusy", "AccountIsBeingCreated", "OperationTimedOut")


class PendingCopyError(StoreError):
    """Something is being copied to this blob."""


class _Blob(NamedTuple):
    """What a path names."""

    account: Account
    container: str
    key: str

    @property
    def target(self) -> str:
        """In a URL; slashes are quoted, too, or two of them might become one on the way."""
        return f"{quote(self.container)}/{quote(self.key, safe='')}"


class AzureBlobs(ObjectFileSystem):
    """Paths begin with ``container/``, ``container@host/`` or ``host/container/``; the host is that
    of an account, such as ``photos.dfs.core.windows.net``."""

    protocol = ("az", "abfs", "abfss")
    container_word = "container"
    package = "adlfs"

    def key(self, path: str) -> str:
        return _split(path)[2]

    def request(self, path: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        return self._ask("GET", path, headers)

    def page(
        self, path: str, prefix: str, delimiter: str, token: str | None, after: str = ""
    ) -> Page:
        blob = _blob(path)
        wanted = {"prefix": prefix, "delimiter": delimiter, "marker": token or ""}
        parameters = {"restype": "container", "comp": "list", "include": "metadata",
                      "maxresults": str(filesystem.PAGE_OBJECTS)}  # fmt: skip
        parameters |= {name: value for name, value in wanted.items() if value}
        url = blob.account.locate(quote(blob.container), parameters)
        root = path[: len(path) - len(blob.key)].rstrip("/")
        return _page(root, content(_answer(blob.account, "GET", url, {})))

    def head(self, path: str) -> Info | None:
        try:
            headers = self._ask("HEAD", path, {}).headers
        except FileNotFoundError:
            return None
        if headers.get("x-ms-meta-hdi_isfolder", "").lower() == "true":
            return None
        return _info(path, headers["Content-Length"], headers["ETag"])

    def put(self, path: str, data: bytes, *, is_new: bool) -> None:
        headers = {"x-ms-blob-type": "BlockBlob"} | ({"If-None-Match": "*"} if is_new else {})
        self._ask("PUT", path, headers, data)

    def copy_object(self, source: str, target: str) -> None:
        """Azure answers a copy before it is done; this waits for its end."""
        blob = _blob(source)
        headers = {"x-ms-copy-source": blob.account.locate(blob.target, {})}
        try:
            started = self._ask("PUT", target, headers, b"").headers
        except PendingCopyError:  # of a run that was killed
            self._end_of_copy(target, _PENDING)
            started = self._ask("PUT", target, headers, b"").headers
        ended = self._end_of_copy(target, started)
        if ended.get("x-ms-copy-id") != started.get("x-ms-copy-id"):
            raise _failed_copy(source, "the target was replaced meanwhile")
        if ended.get("x-ms-copy-status") != "success":
            said = ended.get("x-ms-copy-status-description") or ended.get("x-ms-copy-status")
            raise _failed_copy(source, said or "its status is unknown")

    def _end_of_copy(self, target: str, said: Mapping[str, str]) -> Mapping[str, str]:
        """What Azure says of a copy once it is no longer pending."""
        progress, since = "", time.monotonic()
        while said.get("x-ms-copy-status") == "pending":
            if said.get("x-ms-copy-progress", "") != progress:
                progress, since = said["x-ms-copy-progress"], time.monotonic()
            if time.monotonic() - since > COPY_SECONDS:
                raise _failed_copy(target, "it makes no progress")
            time.sleep(_COPY_PAUSE_SECONDS)
            said = insistently(lambda: self._ask("HEAD", target, {})).headers
        return said

    def delete(self, path: str) -> None:
        self._ask("DELETE", path, {"x-ms-delete-snapshots": "include"})

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        blob = _blob(path)
        url = blob.account.locate(blob.target, {})
        return _answer(blob.account, method, url, headers, body)


def _split(path: str) -> tuple[str, str, str]:
    """The host, which may be empty, the container and the key."""
    first, _, rest = path.partition("/")
    container, has_host, host = first.partition("@")
    if has_host:
        return host, container, rest
    if "." in first:  # which a container's name never has
        container, _, key = rest.partition("/")
        return first, container, key
    return "", first, rest


def _blob(path: str) -> _Blob:
    host, container, key = _split(path)
    return _Blob(account(host), container, key)


def _answer(
    of: Account, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
) -> urllib3.BaseHTTPResponse:
    if body is not None:
        headers = {**headers, "Content-Length": str(len(body))}
    signed = of.authorised(method, url, headers)
    response = send(method, url, signed, body, of.read_seconds)
    if response.status >= 300:
        raise _refusal(response)
    if method != "GET":
        content(response)
    return response


def _refusal(response: urllib3.BaseHTTPResponse) -> StoreError:
    status, code = response.status, response.headers.get("x-ms-error-code", "")
    body = content(response).decode("utf-8", "replace")
    said = body.partition("<Message>")[2].partition("</Message>")[0].split("\n")[0]
    text = " ".join(filter(None, [f"Azure answers {status}", code, said and f"({said})"]))
    if code in ("BlobAlreadyExists", "ConditionNotMet"):
        return ExistsError(FetchError("storage_error", text))
    if code in ("BlobArchived", "BlobBeingRehydrated"):
        return StoreError(FetchError("storage_error", f"{text}: restore it from the archive first"))
    if code in _BAD_CREDENTIALS or status == 401:
        return RefusedCredentialsError(PassingError("access_denied", text))
    if code == "PendingCopyOperation":
        return PendingCopyError(PassingError("storage_error", text))
    return refusal(
        status, text, is_busy=code in _BUSY, retry_after=response.headers.get("Retry-After", "")
    )


def _page(root: str, listing: bytes) -> Page:
    tree = ElementTree.fromstring(listing)
    objects, prefixes = [], []
    for found in tree.find("Blobs") or ():
        path = f"{root}/{_name(found)}"
        if found.tag == "BlobPrefix":
            prefixes.append(path)
        elif not _is_folder(found):
            size = found.findtext("Properties/Content-Length") or "0"
            objects.append(_info(path, size, found.findtext("Properties/Etag") or ""))
    return Page(objects, prefixes, tree.findtext("NextMarker"))


def _name(found: ElementTree.Element) -> str:
    """Percent-encoded where XML cannot have it otherwise."""
    name = found.find("Name")
    if name is None:
        return ""
    text = name.text or ""
    return unquote(text) if name.get("Encoded") == "true" else text


def _is_folder(found: ElementTree.Element) -> bool:
    """Whether it is the marker of a directory, as data lakes have them."""
    metadata = found.find("Metadata")
    said = {item.tag.lower(): item.text for item in (() if metadata is None else metadata)}
    return said.get("hdi_isfolder") == "true"


def _info(path: str, size: str, etag: str) -> Info:
    return {"name": path, "size": int(size), "type": "file", "etag": etag.strip('"')}


def _failed_copy(source: str, said: str) -> StoreError:
    return StoreError(FetchError("storage_error", f"Azure cannot copy {source}: {said}"))
