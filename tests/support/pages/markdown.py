"""The project's pages as Markdown has them: fenced blocks, code spans, headings and links."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.commands import REPOSITORY

PAGES = tuple(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/*.md", "jobs/*/README.md")
    for path in sorted(REPOSITORY.glob(pattern))
)
"""By their names below the repository's root."""

_MARK = re.compile(r"<!-- example: (run|check only|tested by|file)(?:,? (.+))? -->\s*")


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comment before it says about how it is tested."""

    page: str
    line: int
    language: str
    text: str
    test: str | None
    """"run", "check only", "tested by" or "file"; None when no comment stands before it."""
    about: str
    """Why it is only checked, which test runs it, or what its file is called."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a console block behind a prompt, continued ones joined."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page; one that is only indented has the language "indented"."""
    found, before = [], None
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            mark = _MARK.fullmatch(before.content) if before is not None else None
            language = token.info.split()[0] if token.info else "indented"
            line = token.map[0] + 1 if token.map else 0
            test, about = (mark[1], mark[2] or "") if mark else (None, "")
            found.append(Block(page, line, language, token.content, test, about))
        before = token if token.type == "html_block" else None
    return found


def code_spans(page: str) -> list[str]:
    """What stands between single backticks."""
    return [token.content for token in _inline(page) if token.type == "code_inline"]


def links(page: str) -> list[str]:
    """Where links lead and where pictures come from."""
    names = {"link_open": "href", "image": "src"}
    return [str(token.attrs[names[token.type]]) for token in _inline(page) if token.type in names]


def anchors(page: str) -> set[str]:
    """The names that the headings of a page get in a repository's view, and in our site."""
    tokens = list(_tokens(page))
    seen: Counter[str] = Counter()
    found = set()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            words = re.sub(r"[^\w\- ]", "", inline.content.lower()).replace(" ", "-")
            found.add(f"{words}-{seen[words]}" if seen[words] else words)
            seen[words] += 1
    return found


def _tokens(page: str) -> list[Token]:
    return MarkdownIt().parse((REPOSITORY / page).read_text())


def _inline(page: str) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or ()
