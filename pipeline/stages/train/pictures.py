"""The pictures of a training on a worker's own disk, where each can be had at any time."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice

import numpy as np
import numpy.typing as npt

from pipeline.contract.errors import RunError
from pipeline.contract.schema import TRAINING_PICTURE
from pipeline.model.network import Pixels
from pipeline.storage.parquet import open_table
from pipeline.storage.store import Store

_ROWS = 256
_AHEAD = 2
"""Batches that are decoded while one is learned from."""


class Pictures:
    """JPEG and PNG files by number, copied from an output once; a step asks the storage nothing."""

    def __init__(self, store: Store, files: Iterable[str], uris: Sequence[str]) -> None:
        """Copy the pictures of these images; their numbers are their places in ``uris``.

        Raises:
            RunError: one of them is not there.
        """
        numbers = {uri: number for number, uri in enumerate(uris)}
        self._starts = np.zeros(len(uris), np.int64)
        self._ends = np.zeros(len(uris), np.int64)
        with tempfile.TemporaryFile() as file:
            for uri, data in _stored(store, files):
                number = numbers.get(uri)
                if number is not None and not self._ends[number]:
                    self._starts[number] = file.tell()
                    file.write(data)
                    self._ends[number] = file.tell()
            file.flush()
            if missing := int((self._ends == 0).sum()):
                raise RunError(f"{missing} pictures are missing in {store.uri}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getitem__(self, number: int) -> bytes:
        return self._map[self._starts[number] : self._ends[number]]


def _stored(store: Store, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in files:
        with open_table(store, name) as parquet:
            for batch in parquet.iter_batches(
                batch_size=_ROWS, columns=["uri", TRAINING_PICTURE.name]
            ):
                for uri, data in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    if data is not None:
                        yield uri, data


def decoded_ahead(
    pool: Executor, look: Callable[[int], Pixels], pieces: Iterable[npt.NDArray[np.intp]]
) -> Iterator[tuple[npt.NDArray[np.intp], Pixels]]:
    """Each piece with the pixels (B, S, S, 3) of its images, while the next ones are decoded."""
    waiting = ((piece, [pool.submit(look, int(n)) for n in piece]) for piece in pieces)
    ahead = list(islice(waiting, _AHEAD))
    while ahead:
        piece, found = ahead.pop(0)
        ahead += islice(waiting, 1)
        yield piece, np.stack([one.result() for one in found])
