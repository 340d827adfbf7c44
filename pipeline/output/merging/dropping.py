"""Rows of an open run whose object has changed or gone since an earlier attempt wrote them are left
out, before the object is computed again.

A part that has some is written again without them, under another name, which counts as soon as the
run's record has it. Whoever is killed before that leaves the parts as they were; and what a task of
a killed driver still writes belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa

from pipeline.contract import layout
from pipeline.output.ledger.committed import portions
from pipeline.output.ledger.hashes import HashIndex, Mask, hash_strings
from pipeline.output.merging.tasks import InThisProcess, Tasks
from pipeline.output.open_run import OpenRun, Part, PartFooter
from pipeline.storage.parquet import read_columns, read_table, write_table
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

Rewritten = dict[str, Part | None]
"""What is left of parts, by their names; None for nothing."""


def drop_rows(
    run: OpenRun,
    stale: HashIndex,
    tasks: Tasks | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Drop the rows with these URIs; to be called before this attempt's own parts are added.

    Args:
        tasks: where the parts are read and written; by default here.
        check: raises an error when the run has become another process's, whose record this one's
            would replace.
    """
    if not len(stale.keys):
        return
    kept = (layout.kept_part(run.run_id, run.attempt, n) for n in range(len(run.parts)))
    names = ((part.name, name) for part, name in zip(run.parts, kept, strict=True))
    some = list(portions(zip(names, (part.rows for part in run.parts), strict=True)))
    rewrite = partial(_rewritten, store=run.store, stale=stale)
    found: Rewritten = {}
    for rewritten in (tasks or InThisProcess()).map(rewrite, some):
        found |= rewritten
    if found:
        left = (found.get(part.name, part) for part in run.parts)
        run.parts = [part for part in left if part is not None]
        check()
        run.save()
        for _ in map_ahead(run.store.remove_file, found):
            pass


def _rewritten(names: Sequence[tuple[str, str]], store: Store, stale: HashIndex) -> Rewritten:
    """Of some parts, those that have stale rows; with the name of each comes that of what is to be
    left of it."""
    found: Rewritten = {}
    tables = read_columns(store, [name for name, _ in names], ["uri"])
    for (name, kept), table in zip(names, tables, strict=True):
        is_stale, _ = stale.find(hash_strings(table["uri"]))
        if is_stale.any():
            found[name] = _without(is_stale, store, name, kept)
    return found


def _without(is_stale: Mask, store: Store, name: str, kept: str) -> Part | None:
    if is_stale.all():
        return None
    table = read_table(store, name)
    rows = table.filter(pa.array(~is_stale))
    footer = PartFooter.of(table.schema).keep(rows["uri"])
    write_table(store, kept, footer.attach(rows))
    return Part(kept, rows.num_rows, footer)
