"""The pages hang together: every link and every path that they name leads somewhere."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.commands import REPOSITORY
from tests.support.pages.markdown import PAGES, anchors, code_spans, links

_PATH = re.compile(r"[\w-]+(/[\w-]+)*(/|\.py|\.md|\.yaml|\.toml)")
_MODULE = re.compile(r"(?:python -m )?((?:cvt|pipeline|jobs|tests)(?:\.(?!py\b)\w+)+)")
_PLACES = ("", "pipeline/", "cvt/", "jobs/demo/", "jobs/demo/bucket/", "jobs/deploy/")
"""From where the pages name files."""
LAST_PARTS = {
    path.name
    for pattern in ("*", "cvt/**/*", "pipeline/**/*", "jobs/**/*")
    for path in REPOSITORY.glob(pattern)
}
_OUTPUT = re.compile(r"(data|runs)/.*|_open/.*|OUT/.*|out/|relabelled/")


def target(page: str, link: str) -> str:
    """The name below the repository's root of what a link leads to."""
    path = (REPOSITORY / page).parent / urlsplit(link).path if urlsplit(link).path else None
    found = (REPOSITORY / page) if path is None else path.resolve()
    return Path(found).relative_to(REPOSITORY).as_posix()


def exists(name: str) -> bool:
    """Whether there is a file of a name as the pages have it: whole, or only its last part."""
    if "/" in name.rstrip("/"):
        return any((REPOSITORY / place / name).exists() for place in _PLACES)
    return name.rstrip("/") in LAST_PARTS


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:  # of another site only the spelling is looked at
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link
            continue
        name = target(page, link)
        assert (REPOSITORY / name).exists(), link
        if parts.fragment:
            assert parts.fragment in anchors(name), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set[str](), ["README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            inside = [link for link in links(page) if not urlsplit(link).scheme]
            todo += [name for name in (target(page, link) for link in inside) if name in PAGES]
    assert reached == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_module_that_is_named_exists(page: str) -> None:
    for span in code_spans(page):
        if _PATH.fullmatch(span) and not _OUTPUT.fullmatch(span):
            assert exists(span), span
        if module := _MODULE.fullmatch(span):
            assert find_spec(module[1]) is not None, span


def definitions() -> Iterator[str]:
    """Every name that the code defines: functions, classes, variables and fields, modules."""
    for path in REPOSITORY.glob("[cpj]*/**/*.py"):
        yield from (path.stem, path.parent.name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def test_every_name_of_the_recipes_is_one_of_the_code() -> None:
    names = {span for span in code_spans("CONTRIBUTING.md") if re.fullmatch(r"[A-Za-z]\w+", span)}
    assert names
    assert not names - set(definitions())


def test_the_architecture_names_every_room() -> None:
    rooms = {path.parent.name for path in REPOSITORY.glob("pipeline/*/__init__.py")}
    text = (REPOSITORY / "docs/architecture.md").read_text()
    assert set(re.findall(r"^\| `pipeline/(\w+)/`", text, re.MULTILINE)) == rooms
    picture = (REPOSITORY / "docs/rooms.svg").read_text()
    drawn = set(re.findall(r'class="name">(\w+)<', picture))
    assert drawn == rooms | {"jobs", "cvt"}
