"""Every example of the pages is run, or at least is one that the programs accept.

A comment before each block says which. The examples run in one directory, as a reader would who has
followed the README first: the demo's bucket and model are there, and its results.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from tests.support.pages.command_lines import COMMAND, RefusedError, check
from tests.support.pages.markdown import PAGES, Block, blocks, code_spans

BLOCKS = [block for page in PAGES for block in blocks(page)]
ALLOWED: dict[str, set[str | None]] = {
    "console": {"run", "check only"},
    "python": {"run", "check only", "tested by"},
    "sql": {"tested by"},
    "yaml": {"file"},
    "text": {None},
}
"""By language, how a block may be tested. What a program prints, and pictures, are text."""
FIRST = "README.md"
TIMEOUT = 480


def run(block: Block, directory: Path) -> None:
    """Do in a directory what a block says."""
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}
    if block.test == "file":
        (directory / block.about).write_text(block.text)
        return
    if block.language == "python":
        commands = [[sys.executable, "-c", block.text]]
    else:
        commands = [["bash", "-euc", command] for command in block.commands]
    for command in commands:
        done = subprocess.run(
            command, cwd=directory, env=env, capture_output=True, text=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}: {command[-1]}\n{done.stdout}{done.stderr}"


def runnable(page: str) -> list[Block]:
    return [block for block in BLOCKS if block.page == page and block.test in ("run", "file")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands who has followed the README."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / "jobs").symlink_to(REPOSITORY / "jobs")
    for block in runnable(FIRST):
        run(block, directory)
    return directory


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_how_it_is_tested(block: Block) -> None:
    assert block.language in ALLOWED
    assert block.test in ALLOWED[block.language]
    if block.test == "check only":
        assert block.about, "say why it is not run"
    if block.test == "tested by":
        assert block.page in (REPOSITORY / block.about).read_text()


@pytest.mark.ray
def test_the_readme_is_followed(workplace: Path) -> None:
    assert (workplace / "out/latest.json").exists()


@pytest.mark.ray
@pytest.mark.parametrize("page", [page for page in PAGES if page != FIRST and runnable(page)])
def test_examples_run(page: str, workplace: Path) -> None:
    for block in runnable(page):
        run(block, workplace)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.test == "check only"], ids=str)
def test_examples_that_cannot_run_here_are_accepted(block: Block) -> None:
    if block.language == "python":
        compile(block.text, str(block), "exec")
        return
    assert block.commands
    for command in block.commands:
        check(command)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_are_accepted(page: str) -> None:
    for span in code_spans(page):
        if COMMAND.fullmatch(span):
            check(span)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cvt-classify in --output out", "the following arguments are required: --model"),
        ("cvt-embed in --output out --model m --with-lables", "--with-lables"),
        ("cvt-clasify in", "no console script"),
        ("python -m jobs.bench.nowhere", "No module named"),
        ("python -m jobs.bench plan --rows many", "invalid int value"),
        ("make tset", "no target tset"),
        ("make offline-bundle PYTON_VERSION=3.12", "no variable PYTON_VERSION"),
        ('pip install ".[hub]"', "constraints.txt"),
        ('pip install -c constraints.txt ".[cluster,hubb]"', "no extra hubb"),
        ("ray start --haed", "--haed"),
        ("ray job submit -- python -m jobs.nightly", "CONFIG.yaml"),
        ("curl https://example.com", "no program"),
    ],
)
def test_wrong_commands_are_refused(line: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        check(line)
