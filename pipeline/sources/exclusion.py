"""What is left out of an INPUT: what patterns say, understood as .gitignore understands them, and
files of other kinds than those that are taken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from functools import cache

from pipeline.contract.manifest import NO_EXTENSION, OTHER_EXTENSIONS
from pipeline.sources.listing import split_glob, uri_of_named
from pipeline.storage.uris import is_web, printable, split_uri

_ANY_DEPTH = "**"
_WILDCARD = re.compile(r"[*?\[]")
Component = Callable[[str], object]
"""Whether one component of a path matches."""

_EXTENSION = re.compile(r"[\w+~-]{1,16}")
EXTENSIONS_TOLD = 10
_EXTENSIONS_KEPT = 1000
_SYSTEM = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "@eadir", "__macosx"),
        *("$recycle.bin", "system volume information"),
        *("_temporary", "_delta_log", "_spark_metadata"),
    }
)
"""Names, in lower case, of files and directories that programs keep for themselves."""


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
        self.others = OtherFiles()
        """What else lay beside the images."""
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
            is_found = self._matches(uri, _below(uri, base))
            self.count += is_found
            return not is_found

        return is_kept

    def counts(self, root: str, is_counted: Callable[[str], bool]) -> Callable[[str], None]:
        """Counts a file that is not taken, by its URI, unless it matches or is hidden.

        Args:
            root: the INPUT below which it was found.
            is_counted: whether another INPUT has counted it, or it is not to be counted.
        """
        base = cache(lambda: _above_wildcards(uri_of_named(root)))

        def count(uri: str) -> None:
            relative = _below(uri, base())
            if not (_is_hidden(relative) or is_counted(uri) or self._matches(uri, relative)):
                self.others.add(relative)

        return count

    def add(self, excluded: int, others: Counter[str]) -> None:
        """Count what somebody else has found of the same INPUTs."""
        self.count += excluded
        self.others.add_all(others)

    def _matches(self, uri: str, relative: str) -> bool:
        names, whole = relative.split("/"), uri.split("/")
        return any(pattern.matches(names, whole) for pattern in self._patterns)


class Earlier:
    """What INPUTs before this one have searched; files of other kinds there are counted already.
    Those below the output never are."""

    def __init__(self, outside: str) -> None:
        self._roots = {printable(outside).rstrip("/")} if outside else set()
        self._patterns: list[re.Pattern[str]] = []

    def add(self, uri: str) -> None:
        """Note an INPUT that has been searched."""
        protocol, path = split_uri(uri)
        pattern = split_glob(protocol, path)[1]
        if pattern is None:
            self._roots.add(uri_of_named(uri).rstrip("/"))
        else:
            self._patterns.append(pattern)

    def holds(self, uri: str) -> bool:
        """Whether a file lies below one, or matches one."""
        end = uri.rfind("/")
        while end >= 0:
            if uri[:end] in self._roots:
                return True
            end = uri.rfind("/", 0, end)
        return any(pattern.match(split_uri(uri)[1]) for pattern in self._patterns)


class OtherFiles:
    """Files that are not taken, by their extensions, however many and whatever these are."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        """By extension, in lower case; rare ones may be among ``OTHER_EXTENSIONS``."""

    def add(self, path: str) -> None:
        """Count a file."""
        self.numbers[_extension(path)] += 1
        self._limit()

    def add_all(self, numbers: Mapping[str, int]) -> None:
        """Count files by their extensions."""
        self.numbers.update(numbers)
        self._limit()

    def _limit(self) -> None:
        if len(self.numbers) > _EXTENSIONS_KEPT:
            self.numbers = _with_the_rest(self.numbers, _EXTENSIONS_KEPT // 2)


def told(numbers: Counter[str]) -> dict[str, int]:
    """The commonest extensions, most frequent first, then what is left."""
    return dict(_with_the_rest(numbers, EXTENSIONS_TOLD))


def _with_the_rest(numbers: Counter[str], most: int) -> Counter[str]:
    """The commonest, then the number of all others in one."""
    named = sorted(
        ((name, number) for name, number in numbers.items() if name != OTHER_EXTENSIONS),
        key=lambda item: (-item[1], item[0]),
    )
    rest = numbers[OTHER_EXTENSIONS] + sum(number for _, number in named[most:])
    return Counter(dict(named[:most]) | ({OTHER_EXTENSIONS: rest} if rest else {}))


def _extension(path: str) -> str:
    _, dot, extension = path.lower().rpartition("/")[2].rpartition(".")
    return extension if dot and _EXTENSION.fullmatch(extension) else NO_EXTENSION


def _is_hidden(path: str) -> bool:
    """Whether a program keeps the file for itself: its name, or that of a directory above, begins
    with a dot or is one of theirs; or it is a mark such as _SUCCESS."""
    lowered = f"/{path.lower()}"
    names = lowered.split("/")
    is_mark = names[-1].startswith("_") and "." not in names[-1]
    return is_mark or "/." in lowered or not _SYSTEM.isdisjoint(names)


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
