"""Where to cut a listing so that all ranges are about as long: keys are counted with.

``2026/07/0199.jpg`` is, like the display of an odometer, a number whose places are the digits; what
is between them stands still. How far ten pages get says how far the next ten will.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from math import prod
from statistics import median_low

from pipeline.storage.objects.listing.cuts import shared_prefix

COARSE_PLACES = 8
FINE_PLACES = 4
"""How many count before and behind the first one in which keys differ."""
LEAST_TRUST = 16
MOST_TRUST = 128
"""Ranges: each that is not there costs a request."""
MARKS = 32
"""Keys that are remembered of what has been passed."""
SPAN_PAGES = 50
"""Keys are counted with over so many: what lies together, such as a day, may have fewer."""
_HEX = re.compile(r"(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{6,}")
_DIGITS, _LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyz"
_Place = tuple[int, str]
"""Where it is in a key, and what may stand there, in order."""


class Pace:
    """How far pages get in the order of keys, by those that have been passed.

    Args:
        prefix: with which all keys begin.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.trust = LEAST_TRUST
        """So many ranges are worth cutting off at a time."""
        self._marks: deque[tuple[str, int]] = deque(maxlen=MARKS)
        self._pages = 0

    def passes(self, keys: Sequence[str], pages: int) -> None:
        """Note what comes next: its keys, and for how many pages it stands."""
        if keys:
            self._marks.append((keys[0], self._pages))
        self._pages += pages

    def meets(self, *, is_there: bool) -> None:
        """Note whether there is anything in a range that was cut off; numbers may not go so far."""
        more = self.trust + 2 if is_there else self.trust // 2
        self.trust = min(max(more, LEAST_TRUST), MOST_TRUST)

    def steps(
        self, first: str, last: str, pages: int, apart: int, until: str | None
    ) -> Iterator[str]:
        """Keys that follow the last one, in order, so many pages apart; no more than there is trust
        for.

        Args:
            first: of some keys.
            last: of the same.
            pages: what they are, which counts if too little has been passed.
            apart: in pages.
            until: all come before it.
        """
        found = islice(self._counted(first, last, pages, apart), self.trust)
        return takewhile(lambda step: until is None or step < until, found)

    def _counted(self, first: str, last: str, pages: int, apart: int) -> Iterator[str]:
        spans = self._spans() or [(first, last, pages)]
        shared = min(len(shared_prefix(start, last)) for start, _, _ in spans)
        places = _places(last, len(self._prefix), shared)
        paces = [
            (_number(end, last, places) - _number(start, last, places)) * apart // number
            for start, end, number in spans
        ]
        step = median_low(paces)
        after = _number(last, last, places) + step
        most = prod(len(letters) for _, letters in places)
        for number in range(after, most, step) if step > 0 else ():
            yield _key(number, last, places)

    def _spans(self) -> list[tuple[str, str, int]]:
        """Two keys each, and how many pages are between."""
        marks = list(self._marks)
        later = [
            next((m for m in marks[at:] if m[1] >= pages + SPAN_PAGES), None)
            for at, (_, pages) in enumerate(marks)
        ]
        pairs = zip(marks, later, strict=True)
        return [(one[0], two[0], two[1] - one[1]) for one, two in pairs if two is not None]


def _places(key: str, start: int, shared: int) -> list[_Place]:
    """Those that count. Of letters that no keys were seen to differ in, none does."""
    words = [range(*word.span()) for folded in (key, key.lower()) for word in _HEX.finditer(folded)]
    found = [
        (at, letters)
        for at in range(start, len(key))
        if (letters := _letters(key[at], any(at in word for word in words), at == shared))
    ]
    coarse = sum(at < shared for at, _ in found)
    return found[max(coarse - COARSE_PLACES, 0) : coarse + 1 + FINE_PLACES]


def _letters(character: str, is_hex: bool, differs: bool) -> str:
    """What may stand in the place of a character."""
    if is_hex:
        return _DIGITS + ("ABCDEF" if character.isupper() else "abcdef")
    if character in _DIGITS:
        return _DIGITS
    letters = _LETTERS.upper() if character.isupper() else _LETTERS
    return letters if differs and character in letters else ""


def _number(key: str, like: str, places: list[_Place]) -> int:
    """What a key counts; from where it looks otherwise, nothing."""
    number, before = 0, 0
    is_like = True
    for at, letters in places:
        is_like = is_like and at < len(key) and key[before:at] == like[before:at]
        smaller = sum(letter < key[at] for letter in letters) if is_like else 0
        is_like = is_like and key[at] in letters
        number = number * len(letters) + min(smaller, len(letters) - 1)
        before = at + 1
    return number


def _key(number: int, like: str, places: list[_Place]) -> str:
    """The shortest one that counts so much."""
    characters = list(like[: places[-1][0] + 1])
    for at, letters in reversed(places):
        number, digit = divmod(number, len(letters))
        characters[at] = letters[digit]
    return "".join(characters)
