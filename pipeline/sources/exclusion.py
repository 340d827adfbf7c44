"""What people want left out of an INPUT: patterns, understood as .gitignore understands them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate

from pipeline.sources.listing import uri_of_named
from pipeline.storage.uris import is_web, printable

_ANY_DEPTH = "**"
_WILDCARD = re.compile(r"[*?\[]")
Component = Callable[[str], object]
"""Whether one component of a path matches."""


class Exclusion:
    """Which of the listed images are left out.

        *.png  thumbs      without a slash: a file or a directory of this name at any depth
        2019/raw/*.tif     with one: from the INPUT on; * stops at a slash, ** does not
        thumbs/            with one at the end: only directories
        /data/2019  s3://  from the root, or with a scheme: the whole path or URI

    A directory that matches is left out with all that is below it.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.count = 0
        """How many have been left out."""
        self._patterns = [_Pattern(pattern) for pattern in patterns]

    def keeps(self, root: str) -> Callable[[str], bool]:
        """Whether an image stays, by its URI; those that do not are counted.

        Args:
            root: the INPUT below which it was found, or that names it.
        """
        if not self._patterns:
            return lambda uri: True
        base = _above_wildcards(uri_of_named(root))

        def is_kept(uri: str) -> bool:
            relative, whole = _below(uri, base).split("/"), uri.split("/")
            is_found = any(pattern.matches(relative, whole) for pattern in self._patterns)
            self.count += is_found
            return not is_found

        return is_kept


def _above_wildcards(root: str) -> str:
    """The directory that a glob searches; a directory itself, and a file."""
    return _WILDCARD.split(root)[0].rpartition("/")[0] if _WILDCARD.search(root) else root


def _below(uri: str, base: str) -> str:
    """What follows the directory, prefix or glob. Of what lies elsewhere, as lists may name it, it
    is what follows the bucket or host."""
    if uri == base:
        return uri.rpartition("/")[2]
    if uri.startswith(f"{base.rstrip('/')}/"):
        return uri.removeprefix(f"{base.rstrip('/')}/")
    _, scheme, path = uri.partition("://")
    if not scheme:
        return uri.lstrip("/")
    return (path.partition("?")[0] if is_web(uri) else path).partition("/")[2]


class _Pattern:
    def __init__(self, text: str) -> None:
        text = printable(text)
        self._is_whole = "://" in text or text.startswith("/")
        self._only_directories = text.endswith("/")
        bare = text.removeprefix("./").rstrip("/")
        self._is_name = "/" not in bare and not text.startswith("./")
        self._relative = [_component(part) for part in bare.lstrip("/").split("/")]
        self._whole = [_component(part) for part in bare.split("/")]

    def matches(self, relative: Sequence[str], whole: Sequence[str]) -> bool:
        if self._only_directories:
            relative, whole = relative[:-1], whole[:-1]
        if self._is_name:
            (component,) = self._relative
            return component is None or any(component(name) for name in relative)
        if self._is_whole and _begins(whole, self._whole):
            return True
        return _begins(relative, self._relative)


def _component(part: str) -> Component | None:
    """None for any number of components."""
    return None if part == _ANY_DEPTH else re.compile(translate(part)).match


def _begins(names: Sequence[str], pattern: Sequence[Component | None]) -> bool:
    """Whether a path, or a directory above it, matches."""
    if not pattern:
        return True
    first, *rest = pattern
    if first is None:
        return any(_begins(names[start:], rest) for start in range(len(names) + bool(rest)))
    return bool(names) and bool(first(names[0])) and _begins(names[1:], rest)
