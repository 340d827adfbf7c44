"""URLs without what only their owner may see: names and passwords, tokens, signatures.

A run reads with a URL as it was given, and writes and says it as ``public`` has it. In the rows of
listed images, where its query may be what tells two of them apart, it is as ``row_uri`` has it.
"""

from __future__ import annotations

import hashlib
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
_SIGNING = (
    r"x-(?:amz|goog|oss|cos|ms)-[a-z-]+|sig|signature|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|key-pair-id|policy|security-token"
)
_TOKEN = (
    r"(?:\w{1,40}[-_]|access|auth|session|id)?token|(?:\w{1,40}[-_]|api|access|secret)?key|auth"
    r"|authorization|passw(?:or)?d|pwd|jwt|sas|(?:\w{1,40}[-_]|client)?secret"
)
_SECRET = re.compile(rf"([?&](?:{_SIGNING}|{_TOKEN})=)[^&\s'\"<>)\]]+", re.IGNORECASE)
_IS_SIGNING = re.compile(_SIGNING, re.IGNORECASE)
_IS_TOKEN = re.compile(_TOKEN, re.IGNORECASE)
_BESIDE_A_SIGNATURE = frozenset(
    {
        *("expires", "se", "sp", "sv", "sr", "spr", "st", "sip", "ss", "srt", "si", "skoid"),
        *("sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid"),
    }
)
"""Of CloudFront, and of Azure's shared access signatures."""
_FILE_NAME = re.compile(r".*\.\w{2,5}")


def public(text: str) -> str:
    """A URL, or a text with URLs in it, without names, passwords and queries.

    >>> public("https://user:password@host/a.jpg?sig=1")
    'https://host/a.jpg'
    """
    without = _URL.sub(_public, text) if "://" in text else text
    return _SECRET.sub(r"\1…", without) if "=" in without else without


def row_uri(url: str) -> str:
    """The URL of a listed image as its row has it: signatures are left out, so that an image whose
    URL is signed anew every night stays the same one; a token is replaced by a hash, for it might
    be what tells two images apart.

    >>> row_uri("https://host/a.jpg?id=7&X-Amz-Signature=5&X-Amz-Expires=9")
    'https://host/a.jpg?id=7'
    """
    scheme, separator, rest = url.partition("://")
    rest = _without_userinfo(f"{scheme.lower()}://", rest)
    path, mark, query = rest.partition("?")
    if not mark:
        return f"{scheme}{separator}{rest}"
    settings = query.split("&")
    is_signed = any(_IS_SIGNING.fullmatch(one.partition("=")[0]) for one in settings)
    shown = [text for one in settings if (text := _of_row(one, is_signed=is_signed)) is not None]
    return f"{scheme}{separator}{path}" + ("?" + "&".join(shown) if shown else "")


def _of_row(setting: str, *, is_signed: bool) -> str | None:
    name, _, value = setting.partition("=")
    if _IS_SIGNING.fullmatch(name) or (is_signed and name.lower() in _BESIDE_A_SIGNATURE):
        return None
    is_name = name.lower() == "key" and _FILE_NAME.fullmatch(value)
    if not value or is_name or not _IS_TOKEN.fullmatch(name):
        return setting
    return f"{name}=~{hashlib.blake2b(value.encode(errors='replace'), digest_size=8).hexdigest()}"


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
