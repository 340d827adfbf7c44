"""A closed run in a Python program: its rows, its numbers, and a picture of it for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.schema import SOURCE
from pipeline.contract.urls import public
from pipeline.monitoring.card import card
from pipeline.output.ledger.history import History
from pipeline.runs.python.keywords import meant
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.result import RunResult
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.parquet import open_table

if TYPE_CHECKING:
    import pandas as pd
    import ray.data

BLOCK_ROWS = 65_536
"""Of the blocks of a dataset of Ray."""


@dataclass(frozen=True, repr=False)
class Result(RunResult):
    """A closed run. ``counts`` says what became of the images, ``complaint`` why it counts as a
    failure (None if it does not), ``alarms`` how it differs from earlier runs."""

    @property
    def report(self) -> str:
        """Path or URI of the HTML page about the run."""
        return self.report_uri

    @property
    def review(self) -> str | None:
        """Path or URI of the page on which a person corrects it; None if there is nothing to."""
        return self.review_uri

    def table(self, columns: Sequence[str] | None = None, *, new_only: bool = False) -> pa.Table:
        """What the output says of its images since this run: the newest row of each one that is
        there, whether this run computed it or found it done. In order of ``uri``; the columns are
        those of the published files. Later runs change nothing about it.

        Args:
            columns: those to read; all of them by default.
            new_only: take only the rows that this run computed itself.

        Raises:
            UsageError: there is no such column, or two runs have columns of other types.
            RunError: the rows cannot be read.
        """
        named = [columns] if isinstance(columns, str) else columns
        with self._reading():
            history = History(self.store, (self.manifest,)) if new_only else self._history()
            schema = _schema(history)
            wanted = None if named is None else _checked(named, schema)
            tables = [schema.empty_table(), *LiveRows.of(history).batches(BLOCK_ROWS, wanted)]
        if wanted is not None:
            tables[0] = tables[0].select(wanted)
        rows = _unified(tables).sort_by("uri")
        return rows if named is None else rows.select(list(named))

    def to_arrow(self) -> pa.Table:
        """The same as ``table()``."""
        return self.table()

    def to_pandas(self) -> pd.DataFrame:
        """``table()`` as a DataFrame."""
        frame: pd.DataFrame = self.table().to_pandas()
        return frame

    def to_ray(self) -> ray.data.Dataset:
        """``table()`` as a dataset of Ray, which starts if it does not run."""
        import ray.data

        rows = self.table()
        starts = range(0, max(rows.num_rows, 1), BLOCK_ROWS)
        return ray.data.from_arrow([rows.slice(start, BLOCK_ROWS) for start in starts])

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"<Result {self.run_id}: {counts.listed} images listed = {counts.ok} ok + "
            f"{counts.failed} failed + {counts.skipped} skipped (unchanged); {self._root}>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: the numbers, and some of the images as the model saw them."""
        return card(self.manifest, self._pages(), {"output": self._root, "report": self.report})

    @property
    def _root(self) -> str:
        return public(self.store.locate("").rstrip("/"))

    def _history(self) -> History:
        """The output as this run left it."""
        return History.load(self.store, until=self.run_id)

    def _pages(self) -> Iterator[str]:
        """The reports of this run and of those before it, as far as they can be read."""
        with self._reading():
            for run in self._history().runs:
                if not run.files:
                    continue
                name = layout.report_file(run.run_id)
                yield self.store.read_bytes(name).decode("utf-8", "replace")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except STORAGE_ERRORS as error:
            raise RunError(f"cannot read {self._root}: {one_line(error)}") from error


def _schema(history: History) -> pa.Schema:
    """The columns that some file has, each as in the newest that has it."""
    found: dict[str, pa.Field] = {}
    for run in history.runs:
        for name in run.file_names[:1]:  # all files of a run are alike
            with open_table(history.store, name) as file:
                for field in file.schema_arrow.remove_metadata():
                    found.setdefault(field.name, field)
    return pa.schema(list(found.values())) if found else SOURCE


def _checked(columns: Sequence[str], schema: pa.Schema) -> list[str]:
    """The columns to read: these, and the one to sort by.

    Raises:
        UsageError: there is no such column.
    """
    for name in columns:
        if name not in schema.names:
            known = meant(name, schema.names, schema.names)
            raise UsageError(f"there is no column {name}; {known}")
    return list(dict.fromkeys(["uri", *columns]))


def _unified(tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise UsageError(
            f"the runs of this output have columns of other types: {one_line(error)}; read those "
            "of one run with new_only=True, or fewer columns"
        ) from error
