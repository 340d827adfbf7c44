"""Objects of S3 that are sent in parts, and that nobody sees before they are completed.

    begin ──► parts ──► an Upload, which may be kept ──complete──► an object
                                                     └───abort───► nothing

One process may send the parts, and another complete the upload, days later and by one small
request. Each request may be repeated.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSResponse

from pipeline.contract.records import Record
from pipeline.storage.objects.s3.requests import S3Object, answer, insist, refusal
from pipeline.storage.retry import PassingError

PART_BYTES = 16 * 2**20
"""Of each part but the last. S3 wants 5 MiB at least, and takes 10,000 parts."""

T = TypeVar("T")


@dataclass(frozen=True)
class Upload(Record):
    """An object all of whose parts are sent."""

    id: str
    etags: tuple[str, ...]
    """What S3 calls the parts, in their order."""
    size: int
    """Bytes of the object."""


class Sending(io.RawIOBase):
    """A file whose bytes become the parts of an object.

    Raises:
        OSError: S3 does not take uploads in parts, or none to there.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.id = _begin(path)
        self._waiting = bytearray()
        self._etags: list[str] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        """Take some bytes, and send the parts that are full."""
        with memoryview(data) as view:
            self._waiting += view
            self._size += view.nbytes
            written = view.nbytes
        while len(self._waiting) >= PART_BYTES:
            self._send()
        return written

    def _send(self) -> None:
        body = bytes(self._waiting[:PART_BYTES])
        del self._waiting[:PART_BYTES]
        query = {"partNumber": str(len(self._etags) + 1), "uploadId": self.id}
        self._etags.append(_ask("PUT", self.path, query, _etag, body))

    def finish(self) -> Upload:
        """Send the rest."""
        if self._waiting or not self._etags:
            self._send()
        return Upload(self.id, tuple(self._etags), self._size)


def _begin(path: str) -> str:
    found = _ask("POST", path, {"uploads": ""}, _parsed).findtext("{*}UploadId")
    if not found:
        raise OSError("S3 does not say what it calls the upload")
    return found


def complete(path: str, upload: Upload) -> None:
    """Make the object visible. That it is already, as after a try whose answer was lost, is no
    error: a store may have forgotten the upload then.

    Raises:
        FileNotFoundError: S3 knows neither the upload nor an object of its size.
    """
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in enumerate(upload.etags, start=1)
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    body = f'<CompleteMultipartUpload xmlns="{space}">{parts}</CompleteMultipartUpload>'.encode()
    try:
        _ask("POST", path, {"uploadId": upload.id}, _parsed, body)
    except OSError:
        if _size(path) != upload.size:
            raise


def _size(path: str) -> int | None:
    """Bytes of an object, if there is one."""
    try:
        return insist(S3Object(path).size)
    except FileNotFoundError:
        return None


def abort(path: str, upload_id: str) -> None:
    """Have S3 forget an upload; one that it does not know is no error."""
    try:
        _ask("DELETE", path, {"uploadId": upload_id}, _nothing)
    except FileNotFoundError:
        return


def unfinished(path: str) -> Iterator[tuple[str, str]]:
    """The paths and IDs of all uploads to below a path that were neither completed nor aborted."""
    bucket, _, key = path.partition("/")
    query = {"uploads": "", "prefix": f"{key}/" if key else ""}
    while True:
        page = _ask("GET", f"{bucket}/", query, _parsed)
        for node in page.iterfind("{*}Upload"):
            yield f"{bucket}/{_text(node, 'Key')}", _text(node, "UploadId")
        following = {"key-marker": _text(page, "NextKeyMarker"),
                     "upload-id-marker": _text(page, "NextUploadIdMarker")}  # fmt: skip
        if _text(page, "IsTruncated") != "true" or query == query | following:
            return
        query |= following


def _text(node: Element, name: str) -> str:
    return node.findtext(f"{{*}}{name}", "")


def _ask(
    method: str,
    path: str,
    query: dict[str, str],
    read: Callable[[AWSResponse], T],
    body: bytes = b"",
) -> T:
    """What is read in the answer to a request that may be repeated.

    Raises:
        FileNotFoundError: there is no such upload, or no such bucket.
        PermissionError: it is not allowed.
        OSError: S3 does not answer, or refuses.
    """
    bucket, _, key = path.partition("/")
    target = f"{quote(key, safe='/~')}?{urlencode(sorted(query.items()), quote_via=quote)}"

    def ask() -> T:
        response = answer(bucket, method, target, body=body, patient=True)
        if response.status_code >= 300:
            raise refusal(response)
        return read(response)

    return insist(ask)


def _parsed(response: AWSResponse) -> Element:
    try:
        found = ElementTree.fromstring(response.content)
    except ElementTree.ParseError as error:
        raise PassingError("storage_error", f"the answer is cut off: {error}") from error
    if found.tag.endswith("Error"):  # that S3 only met after it had begun to answer with 200
        raise PassingError("storage_error", str(refusal(response)))
    return found


def _etag(response: AWSResponse) -> str:
    return str(response.headers["ETag"])


def _nothing(response: AWSResponse) -> None: ...
