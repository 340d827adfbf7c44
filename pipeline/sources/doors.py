"""Which names of a list are followed: a list is other people's input to a process that holds
credentials and stands inside a network."""

from __future__ import annotations

from collections.abc import Set

from pipeline.contract.errors import FetchError


def check_door(uri: str, protocols: Set[str]) -> None:
    """Refuse a URI whose protocol is not one of these; a local path has none, and a listing has let
    it in. What names other URIs within itself (``simplecache::http://...``) has none of them.

    Raises:
        FetchError: url_refused.
    """
    protocol, separator, _ = uri.partition("://")
    if separator and protocol.lower() not in protocols:
        raise FetchError("url_refused", _refusal(protocol))


def _refusal(protocol: str) -> str:
    if protocol == "file":
        return "a list that is not local names a local file; --allow-local-files reads it"
    if "::" in protocol:
        return "chained URIs are not read"
    return f"lists may not name {protocol}:// URIs; --allow-protocols {protocol} lets them"
