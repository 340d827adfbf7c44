"""URIs, and how they are spelled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import accumulate

# How backslashreplace writes the surrogate that stands for a byte that is not UTF-8.
_ESCAPED_BYTE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def split_uri(uri: str) -> tuple[str, str]:
    """``(protocol, path)``; nothing is unescaped, local paths become absolute.

    >>> split_uri("s3://bucket/a b#c.jpg")
    ('s3', 'bucket/a b#c.jpg')
    """
    protocol, separator, path = uri.partition("://")
    if not separator:
        return "file", os.path.abspath(os.path.expanduser(uri))
    protocol = protocol.lower()
    if protocol in ("file", "local"):
        return "file", os.path.abspath(path)
    return {"s3a": "s3"}.get(protocol, protocol), path


def join_uri(protocol: str, path: str) -> str:
    """The inverse of ``split_uri``: local paths have no scheme."""
    return path if protocol == "file" else f"{protocol}://{path}"


def canonical(uri: str) -> str:
    """The one spelling of a URI: a local path is absolute, a protocol in lower case.

    >>> canonical("S3A://bucket/a")
    's3://bucket/a'
    """
    return join_uri(*split_uri(uri))


def printable(path: str) -> str:
    """A local path as valid Unicode: bytes that are not UTF-8 are escaped: ``caf\\udce9``."""
    return path.encode("utf-8", "backslashreplace").decode()


def local_path(path: str) -> str:
    """The inverse of ``printable``, unless a file has the escaped name itself."""
    if "\\udc" not in path or os.path.lexists(path):
        return path
    return _ESCAPED_BYTE.sub(lambda match: chr(int(match[1], 16)), path)


def with_ancestors(uri: str) -> Iterator[str]:
    """Every URI that this one may be a member of (what precedes a "#"), and the URI itself.

    >>> list(with_ancestors("a#1/x.tar#b.jpg"))
    ['a', 'a#1/x.tar', 'a#1/x.tar#b.jpg']
    """
    return accumulate(uri.split("#"), "{}#{}".format)


def is_web(uri: str) -> bool:
    """Whether the URI is one of http or https."""
    return uri.lower().startswith(("http://", "https://"))
