"""What a subcommand of the benchmark is, and what all of them share."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.contract.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pipeline.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One kind of measurement; it stands in the table of ``jobs.bench.__main__``.

    Its module is imported for every ``--help``, so what measures is imported by ``measure``.
    """

    name: str
    help: str
    """One line for the list of subcommands, and the start of the subcommand's own help."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace], ExitCode]
    """Measure and print."""


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A local directory for as long as something is measured."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def new_output(output: str) -> Store:
    """Where something is to be written.

    Raises:
        UsageError: something is there.
    """
    from pipeline.storage.store import Store
    from pipeline.storage.uris import canonical

    store = Store(canonical(output))
    if store.list("", or_itself=True):
        raise UsageError(f"the output is {output}, where something is; name a new one")
    return store


def add_rounds(parser: argparse.ArgumentParser, default: int) -> None:
    """Add ``--rounds``."""
    parser.add_argument("--rounds", type=int, default=default, metavar="N",
        help="repeat in turns and take medians (default: %(default)s)")  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``, which ``save`` reads."""
    parser.add_argument("--json", type=Path, metavar="FILE",
        help="write everything measured, and on what")  # fmt: skip


def save(a: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write everything measured, on what, as JSON, where ``--json`` says."""
    from jobs.bench.measure import machine

    if a.json is None:
        return
    given = {name: value for name, value in vars(a).items() if name != "json"}
    about = {
        "arguments": given,
        "hardware": machine.hardware(),
        "versions": machine.all_versions(),
    }
    a.json.write_text(json.dumps(about | found, indent=2, default=str) + "\n")
