"""Pictures that earlier runs have kept in their review queues, for runs that read no image."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError
from pipeline.contract.schema import PICTURE
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store

MOST_RUNS = 30
"""Whose queues are read: of the newest runs, some megabytes each."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptPictures:
    """Pictures by URI."""

    table: pa.Table
    """``uri`` and ``picture``; of an image with several, the first counts."""

    @classmethod
    def of_runs(cls, store: Store, run_ids: Iterable[str]) -> Self:
        """Those that the queues of some runs have, newest first; a damaged one has none."""
        schema = pa.schema([("uri", pa.string()), ("picture", PICTURE.type)])
        found = [schema.empty_table()]
        for run_id in islice(run_ids, MOST_RUNS):
            name = f"{layout.run_dir(run_id)}/{layout.REVIEW}"
            try:
                queue = read_table(store, name)
            except FileNotFoundError:  # a run without a queue
                continue
            except DamagedFileError as error:
                log.warning("pictures are left out: %s", error)
                continue
            if "picture" in queue.column_names:  # older versions kept none
                found.append(queue.select(schema.names).cast(schema))
        pictures = pa.concat_tables(found)
        return cls(pictures.filter(pc.is_valid(pictures["picture"])))

    def beside(self, rows: pa.Table) -> pa.Table:
        """The rows, and their pictures as a column that travels to the queue of their own run."""
        if not len(self.table):
            return rows
        at = pc.index_in(rows["uri"], self.table["uri"].combine_chunks())
        return rows.append_column(PICTURE, self.table["picture"].combine_chunks().take(at))
