"""Lines of text files, in bounded memory, however long they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

LINE_CHARACTERS = 4 * 2**20
"""The most that a line may have."""


@dataclass(frozen=True)
class OddLine:
    """A line that is no row, though the lines around it are."""

    reason: str


def bounded_lines(text: io.TextIOWrapper) -> Iterator[str | OddLine]:
    """The lines of a text with their ends; those that are too long are passed over."""
    number = 0
    while line := text.readline(LINE_CHARACTERS):
        number += 1
        if len(line) < LINE_CHARACTERS or line.endswith(("\n", "\r")):
            yield line
            continue
        while (rest := text.readline(LINE_CHARACTERS)) and not rest.endswith(("\n", "\r")):
            pass
        yield OddLine(f"line {number} is longer than {LINE_CHARACTERS} characters")
