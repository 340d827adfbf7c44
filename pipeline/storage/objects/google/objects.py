"""Objects of Google Cloud Storage, each read and written by one request of its JSON interface."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import urllib3

from pipeline.contract.errors import FetchError
from pipeline.storage.objects import filesystem
from pipeline.storage.objects.connection import (
    ExistsError,
    RefusedCredentialsError,
    content,
    refusal,
    send,
)
from pipeline.storage.objects.filesystem import ObjectFileSystem
from pipeline.storage.objects.google.access import access
from pipeline.storage.objects.listing.by_prefixes import Info, Page
from pipeline.storage.retry import PassingError, StoreError

COPY_SECONDS = 120.0
"""For an answer to a request to copy, which comes when a part of the copy is made."""
_FIELDS = "name,size,etag"
_BOUNDARY = secrets.token_hex(16)
_BUSY = ("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded")


class GoogleObjects(ObjectFileSystem):
    """Paths begin with ``bucket/``."""

    protocol = ("gs", "gcs")
    container_word = "bucket"
    package = "gcsfs"

    def key(self, path: str) -> str:
        return path.partition("/")[2]

    def request(self, path: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        return _answer("GET", _target(path), {"alt": "media"}, headers)

    starts_after = True

    def page(
        self, path: str, prefix: str, delimiter: str, token: str | None, after: str = ""
    ) -> Page:
        bucket = path.partition("/")[0]
        wanted = {"prefix": prefix, "delimiter": delimiter, "pageToken": token or "",
                  "startOffset": after,
                  "maxResults": str(filesystem.PAGE_OBJECTS),
                  "fields": f"items({_FIELDS}),prefixes,nextPageToken"}  # fmt: skip
        parameters = {name: value for name, value in wanted.items() if value}
        found = _json("GET", f"storage/v1/b/{quote(bucket)}/o", parameters)
        objects = [_info(f"{bucket}/{item['name']}", item) for item in found.get("items", ())]
        prefixes = [f"{bucket}/{name}" for name in found.get("prefixes", ())]
        return Page(objects, prefixes, found.get("nextPageToken"))

    def head(self, path: str) -> Info | None:
        try:
            return _info(path, _json("GET", _target(path), {"fields": _FIELDS}))
        except FileNotFoundError:
            return None

    def put(self, path: str, data: bytes, *, is_new: bool) -> None:
        bucket, _, key = path.partition("/")
        parameters = {"uploadType": "multipart"} | ({"ifGenerationMatch": "0"} if is_new else {})
        body = _multipart({"name": key}, data)
        kind = {"Content-Type": f"multipart/related; boundary={_BOUNDARY}"}
        target = f"upload/storage/v1/b/{quote(bucket)}/o"
        content(_answer("POST", target, parameters, kind, body))

    def copy_object(self, source: str, target: str) -> None:
        """A large object takes several requests, each of which says how to go on."""
        to = _target(target).removeprefix("storage/v1/")
        parameters: dict[str, str] = {}
        while True:
            said = _json("POST", f"{_target(source)}/rewriteTo/{to}", parameters, b"", COPY_SECONDS)
            if said.get("done", True):
                return
            parameters = {"rewriteToken": said["rewriteToken"]}

    def delete(self, path: str) -> None:
        content(_answer("DELETE", _target(path), {}, {}))


def _target(path: str) -> str:
    bucket, _, key = path.partition("/")
    return f"storage/v1/b/{quote(bucket)}/o/{quote(key, safe='')}"


def _multipart(metadata: Mapping[str, str], data: bytes) -> bytes:
    """The body of an upload: what the object is called, and what it holds."""
    first = f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
    second = f"\r\n--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n"
    head = first + json.dumps(metadata) + second
    return b"".join([head.encode(), data, f"\r\n--{_BOUNDARY}--".encode()])


def _json(
    method: str,
    target: str,
    parameters: dict[str, str],
    body: bytes | None = None,
    read_seconds: float = 0,
) -> dict[str, Any]:
    """The answer as JSON."""
    response = _answer(method, target, parameters, {}, body, read_seconds)
    found: dict[str, Any] = json.loads(content(response))
    return found


def _answer(
    method: str,
    target: str,
    parameters: dict[str, str],
    headers: Mapping[str, str],
    body: bytes | None = None,
    read_seconds: float = 0,
) -> urllib3.BaseHTTPResponse:
    reach = access()
    headers = {**headers, **reach.headers()}
    if body is not None:
        headers["Content-Length"] = str(len(body))
    patience = max(read_seconds, reach.read_seconds)
    response = send(method, reach.url(target, parameters), headers, body, patience)
    if response.status >= 300:
        raise _refusal(response, is_known=reach.is_known)
    return response


def _refusal(response: urllib3.BaseHTTPResponse, *, is_known: bool) -> StoreError:
    """What a refusal means to somebody who has said, or not, who he is."""
    status, reason, message = response.status, "", ""
    try:
        said = json.loads(content(response))["error"]
        message = said["message"]
        reason = said["errors"][0]["reason"]
    except (ValueError, KeyError, TypeError, IndexError):  # some refusals are plain text
        pass
    text = " ".join(filter(None, [f"Google answers {status}", reason, message and f"({message})"]))
    if status == 401 and is_known:
        return RefusedCredentialsError(PassingError("access_denied", text))
    if status == 412:
        return ExistsError(FetchError("storage_error", text))
    return refusal(
        status, text, is_busy=reason in _BUSY, retry_after=response.headers.get("Retry-After", "")
    )


def _info(path: str, said: Mapping[str, Any]) -> Info:
    return {
        "name": path,
        "size": int(said.get("size", 0)),
        "type": "file",
        "etag": said.get("etag", ""),
    }
