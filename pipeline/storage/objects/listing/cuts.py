"""Where a listing is worth cutting, judged by the names of a page."""

from __future__ import annotations

from itertools import islice
from string import hexdigits

WORTH_PAGES = 3
"""A range of fewer pages is not cut off, for its last request brings keys of the next one."""
LEVELS = 2
"""Of groups, the smaller ones in the larger ones; what follows is cut by its own first page."""
HEX_DIGITS = 6
"""So many in a row, letters and digits, are no word and no number."""
_ALPHABETS = (
    "0123456789",
    "abcdef",
    "ghijklmnopqrstuvwxyz",
    "ABCDEF",
    "GHIJKLMNOPQRSTUVWXYZ",
)
"""What the next character of a key may be, if one of them is one. Any other may be, too: it only is
in the range of the one before."""


def cuts(first: str, last: str, pages: float, prefix: str) -> list[str]:
    """Where to cut what follows the last key, in order: where the next groups of keys begin. In a
    group, keys agree up to some character. Groups have some pages each, as far as one can tell by
    how far so many pages get, and behind them follow some that are ten times as large."""
    shared = len(shared_prefix(first, last))
    depth, of_group = shared, _pages_of_one(first[shared:], last[shared:], pages)
    while of_group < WORTH_PAGES and depth > len(prefix):
        depth, of_group = depth - 1, of_group * 10
    depths = range(depth, len(prefix) - 1, -1)
    levels = ([last[:at] + c for c in _following(last[at:], is_sure=at == shared)] for at in depths)
    return [point for level in islice(filter(None, levels), LEVELS) for point in level]


def _pages_of_one(first: str, last: str, pages: float) -> float:
    """About how many pages have the keys that agree in the next character, too."""
    letters = _alphabet(first[:1])
    if not first or last[:1] not in letters:
        return pages / 2
    return pages / (letters.index(last[0]) - letters.index(first[0]) + 1)


def shared_prefix(one: str, other: str) -> str:
    """How both strings begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))]


def _following(rest: str, *, is_sure: bool) -> str:
    """What may come in place of the first character, later in the order of keys.

    Args:
        is_sure: the character differs among the keys; else numbers alone are likely to go on.
    """
    later = _alphabet(rest[:1]).partition(rest[:1])[2]
    word = rest[:HEX_DIGITS]
    is_hex = len(word) == HEX_DIGITS and not word.isalpha() and set(word) <= set(hexdigits)
    if rest[:1] in _ALPHABETS[0]:
        return later + ("" if not is_hex or word.isdigit() else "a" if word.islower() else "A")
    return later if is_sure or is_hex else ""


def _alphabet(character: str) -> str:
    return next((letters for letters in _ALPHABETS if character in letters), "")
