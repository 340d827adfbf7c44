"""URLs without what only their owner may see: names and passwords, tokens, signatures.

A run reads with a URL as it was given, and writes and says it as ``public`` has it.
"""

from __future__ import annotations

import re

_SCHEME = r"\b[a-z][a-z0-9+.-]{0,20}://"
_URL = re.compile(rf"({_SCHEME})((?:(?!{_SCHEME})[^\s'\"<>])*)", re.IGNORECASE)
# A password may hold slashes, as AWS's do; a port and what follows it are none.
_PASSWORD = re.compile(r"[^/?#:@]*:(?!\d*(?:[/?#]|$)).*@", re.DOTALL)
_NAME = re.compile(r"[^/?#:@]*@")
_CONTAINER_SCHEMES = ("abfs://", "abfss://", "wasb://", "wasbs://")
"""Azure's, in which ``container@account`` stands where others have a name and password."""
_WEB = ("http://", "https://")
_SETTING = re.compile(r"[\w-]+=")
_SECRET = re.compile(
    r"([?&](?:x-amz-[a-z-]+|x-goog-[a-z-]+|sig|signature|awsaccesskeyid|googleaccessid|policy|"
    r"(?:\w{1,40}[-_])?token|(?:\w{1,40}[-_]?)?key|auth|authorization|password|pwd|"
    r"(?:\w{1,40}[-_])?secret)=)[^&\s'\"<>)\]]+",
    re.IGNORECASE,
)


def public(text: str) -> str:
    """A URL, or a text with URLs in it, without names, passwords and queries.

    >>> public("https://user:password@host/a.jpg?sig=1")
    'https://host/a.jpg'
    """
    without = _URL.sub(_public, text) if "://" in text else text
    return _SECRET.sub(r"\1…", without) if "=" in without else without


def has_password(uri: str) -> bool:
    """Whether a URI has a password in front of its host or bucket."""
    return _PASSWORD.match(uri.partition("://")[2]) is not None


def _public(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    head, mark, query = _without_userinfo(scheme.lower(), rest).partition("?")
    is_query = scheme.lower() in _WEB or _SETTING.match(query)
    return f"{scheme}{head}" if is_query else f"{scheme}{head}{mark}{query}"


def _without_userinfo(scheme: str, rest: str) -> str:
    """What follows it; the last @ in front of a query ends it, or any if there is none."""
    head = rest.partition("?")[0]
    if password := _PASSWORD.match(head) or _PASSWORD.match(rest):
        return rest[password.end() :]
    name = None if scheme in _CONTAINER_SCHEMES else _NAME.match(rest)
    return rest[name.end() :] if name else rest
