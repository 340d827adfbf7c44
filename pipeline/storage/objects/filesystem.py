"""An object store as a filesystem of fsspec that keeps no listings: what another process has
written or removed is seen at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, ClassVar, TypeVar

import urllib3
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from urllib3.exceptions import HTTPError

from pipeline.contract.errors import FetchError, UsageError, one_line
from pipeline.storage.objects.bodies import Body, UnpackedBody
from pipeline.storage.objects.connection import (
    AbsentError,
    DeniedError,
    RefusedCredentialsError,
    insistently,
    silence,
)
from pipeline.storage.objects.listing.by_prefixes import Info, Page, listed_by_prefixes
from pipeline.storage.objects.listing.ranges import listed_in_ranges
from pipeline.storage.objects.listing.stretches import Far, KeyPage
from pipeline.storage.retry import BadCredentialsError, StoreError

PAGE_OBJECTS = 1000
"""In a page of a listing, at most."""

T = TypeVar("T")
M = TypeVar("M")


def is_no_marker(info: Info) -> bool:
    """Whether it is more than an empty object that stands for a directory."""
    return not info["name"].endswith("/")


class ObjectFileSystem(AbstractFileSystem):
    """What a run asks of an object store.

    A path is what follows ``://`` in a URI, byte for byte: nothing in it is unescaped or
    normalised. All errors are OSErrors.
    """

    cachable = False  # by fsspec, which would make one for every thread
    protocol: ClassVar[tuple[str, ...]]
    container_word: ClassVar[str]
    """What the store calls the first component of a path."""
    package: ClassVar[str]
    """Which finds the credentials."""

    @abstractmethod
    def request(self, path: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer to a GET of an object, its body not read.

        Raises:
            StoreError: there is none, or it is a refusal.
        """

    @abstractmethod
    def key(self, path: str) -> str:
        """What follows the container."""

    starts_after: ClassVar[bool] = False
    """Whether a listing may begin after any string."""

    @abstractmethod
    def page(
        self, path: str, prefix: str, delimiter: str, token: str | None, after: str = ""
    ) -> Page:
        """A page of the objects in a container whose keys begin with ``prefix``; the first one of
        those that come after a string (or have it as their key), if it can start there."""

    @abstractmethod
    def head(self, path: str) -> Info | None:
        """An object; None if there is none."""

    @abstractmethod
    def put(self, path: str, data: bytes, *, is_new: bool) -> None:
        """Write an object in one request; if it is to be new, only where there is none."""

    @abstractmethod
    def copy_object(self, source: str, target: str) -> None:
        """Return when the target is complete."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.partition("://")[2] if "://" in path else path

    def pages(self, path: str, delimiter: str = "") -> Iterator[Page]:
        """The objects below a prefix, as many at a time as a request brings."""
        key = self.key(path)
        prefix = f"{key.rstrip('/')}/" if key else ""
        token: str | None = None
        while True:
            page = insistently(lambda: self.page(path, prefix, delimiter, token))  # noqa: B023
            yield page
            token = page.following
            if not token:
                return

    def below(self, path: str, far: Far[Info, M] | None = None) -> Iterator[Info | M]:
        """Every object below a prefix; not the markers of directories.

        Args:
            far: where stretches of many objects are listed, and become one thing each, if a listing
                may begin after any string. It meets the markers, too.

        Raises:
            FileNotFoundError: the container does not exist.
        """
        if not self.starts_after:
            yield from filter(is_no_marker, listed_by_prefixes(self.pages, path))
            return
        key = self.key(path)
        prefix = f"{key.rstrip('/')}/" if key else ""
        for found in listed_in_ranges(partial(self._key_page, path, prefix), prefix, far):
            if not isinstance(found, dict) or is_no_marker(found):
                yield found

    def _key_page(self, path: str, prefix: str, after: str, token: str | None) -> KeyPage[Info]:
        page = insistently(lambda: self.page(path, prefix, "", token, after))
        keys = [self.key(info["name"]) for info in page.objects]
        return KeyPage(keys, page.objects, page.following or None)

    def named(self, path: str) -> Info | None:
        """The object that has this very path, if there is one."""
        if not self.key(path):
            return None
        return insistently(lambda: self.head(path))

    def info(self, path: str, **options: Any) -> Info:
        found = self.named(path)
        if found is not None:
            return found
        for page in self.pages(path):
            if any(not below["name"].endswith("/") for below in page.objects):
                return {"name": path, "size": 0, "type": "directory"}
        raise AbsentError(FetchError("not_found", path))

    def refusal_of_credentials(self, path: str) -> str | None:
        """Why the store refuses the credentials themselves; None if it does not.

        Asks for a listing, which may be denied even to good credentials.
        """
        try:
            self.page(path, "", "/", None)
        except RefusedCredentialsError as error:
            return str(error)
        except (OSError, UsageError):  # which says nothing about credentials
            return None
        return None

    def answers(self, path: str) -> bool:
        """Whether anything at all comes back when the store is asked for a listing."""
        try:
            self.page(path, "", "/", None)
        except StoreError as error:
            return not isinstance(error.__cause__, HTTPError)
        except (OSError, UsageError):
            return True
        return True

    def exists(self, path: str, **options: Any) -> bool:
        """Whether there is an object, or one below; raises where fsspec would say no."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False,
             detail: bool = False, **options: Any) -> Any:  # fmt: skip
        found = {info["name"]: info for info in self.below(path)}
        if not found and (named := self.named(path)):
            found = {path: named}
        return found if detail else list(found)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        found: list[Info] = []
        for page in self.pages(path, delimiter="/"):
            found += page.objects
            found += [{"name": name, "size": 0, "type": "directory"} for name in page.prefixes]
        return found if detail else [info["name"] for info in found]

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        def read() -> bytes:
            try:
                with closing(StoreObject(self, path).open(start or 0, end)) as body:
                    return body.read()
            except BadCredentialsError as error:
                raise DeniedError(error) from error
            except FetchError as error:
                raise StoreError(error) from error
            except HTTPError as error:
                raise silence(error) from error

        return insistently(read)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        try:
            insistently(lambda: self.put(path, value, is_new=mode == "create"))
        except FileNotFoundError as error:
            container = path.removesuffix(self.key(path)).rstrip("/")
            text = f"the {self.container_word} {container} does not exist"
            raise AbsentError(FetchError("not_found", text)) from error

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        insistently(lambda: self.copy_object(path1, path2))

    def rm_file(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            insistently(lambda: self.delete(path))
        except FileNotFoundError:
            return

    def _open(self, path: str, mode: str = "rb", **options: Any) -> ObjectFile:
        return ObjectFile(self, path, mode, **options)


class ObjectFile(AbstractBufferedFile):
    """An object as a file that is read ahead in blocks."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, min(end, self.size))
        return data


class StoreObject:
    """An object, which may be read in pieces as long as it stays the same."""

    def __init__(self, store: ObjectFileSystem, path: str) -> None:
        self._store = store
        self._path = path
        self._etag: str | None = None

    def open(self, start: int = 0, stop: int | None = None) -> Body | UnpackedBody:
        """Its bytes from ``start`` up to ``stop``, or to the end, by one request.

        Raises:
            StoreError: the store refuses, or is silent.
            FetchError: the object is another one by now.
        """
        is_part = bool(start) or stop is not None
        headers = {
            "Accept-Encoding": "gzip"
        }  # or Google unpacks it, and cannot say how large it is
        if is_part:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        response = self._sure(lambda: self._store.request(self._path, headers))
        self._check_version(response)
        if is_part and response.status != 206:
            response.close()
            raise FetchError("storage_error", "the server cannot send a part of an object")
        body = Body(response, int(response.headers["Content-Length"]))
        if response.headers.get("Content-Encoding") != "gzip":
            return body
        if is_part:
            body.close()
            raise FetchError("storage_error", "it has Content-Encoding: gzip, and is read by parts")
        return UnpackedBody(body)

    def size(self) -> int:
        """In bytes."""
        found = self._sure(lambda: self._store.head(self._path))
        if found is None:
            raise AbsentError(FetchError("not_found", "no longer there"))
        return int(found["size"])

    def _sure(self, request: Callable[[], T]) -> T:
        """What the request returns; credentials are blamed only if they are refused for all."""
        try:
            return request()
        except UsageError as error:  # only a list names what nobody configured
            raise FetchError("url_refused", one_line(error)) from error
        except RefusedCredentialsError as error:
            if reason := self._store.refusal_of_credentials(self._path):
                raise BadCredentialsError(reason) from error
            raise

    def _check_version(self, response: urllib3.BaseHTTPResponse) -> None:
        etag = response.headers.get("ETag")
        if self._etag not in (None, etag):
            response.close()
            raise FetchError("storage_error", "the object was replaced while being read")
        self._etag = etag
