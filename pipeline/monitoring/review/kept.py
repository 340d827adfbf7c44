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
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

MOST_RUNS = 30
"""Whose queues are read: of the newest runs, some megabytes each."""
_PICTURES = pa.schema([("uri", pa.string()), ("picture", PICTURE.type)])
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptPictures:
    """Pictures by URI."""

    table: pa.Table
    """``uri`` and ``picture``; of an image with several, the first counts."""

    @classmethod
    def of_runs(cls, store: Store, run_ids: Iterable[str]) -> Self:
        """Those that the queues of some runs have, newest first; a damaged one has none."""
        names = [f"{layout.run_dir(run)}/{layout.REVIEW}" for run in islice(run_ids, MOST_RUNS)]
        found = map_ahead(lambda name: _pictures_in(store, name), names)
        return cls(pa.concat_tables([_PICTURES.empty_table(), *found]).combine_chunks())

    def beside(self, rows: pa.Table) -> pa.Table:
        """The rows, and their pictures as a column that travels to the queue of their own run."""
        if not len(self.table):
            return rows
        at = pc.index_in(rows["uri"], self.table["uri"].combine_chunks())
        return rows.append_column(PICTURE, self.table["picture"].combine_chunks().take(at))


def _pictures_in(store: Store, name: str) -> pa.Table:
    """Those of a queue, as ``_PICTURES``."""
    try:
        queue = read_table(store, name)
    except FileNotFoundError:  # a run without a queue
        return _PICTURES.empty_table()
    except DamagedFileError as error:
        log.warning("pictures are left out: %s", error)
        return _PICTURES.empty_table()
    if "picture" not in queue.column_names:  # older versions kept none
        return _PICTURES.empty_table()
    pictures = queue.select(_PICTURES.names).cast(_PICTURES)
    return pictures.filter(pc.is_valid(pictures["picture"]))
