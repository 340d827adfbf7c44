"""Decoded images on their way to Arrow: rows, and pixels in one piece of memory."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.contract.schema import JPEG, PIXELS
from pipeline.model.network import Pixels


class Block:
    """Rows of a table to be, their pixels in one piece of memory: each image is copied there as it
    is decoded, and from there by Ray to the object store."""

    def __init__(self, capacity: int) -> None:
        """``capacity``: bytes of all pixels there may be."""
        self.rows: list[dict[str, Any]] = []
        self.jpeg_bytes = 0
        """Of files that travel as they are."""
        self._capacity = capacity
        self._has_pixels: list[bool] = []
        self._ends = [0]
        """Where the pixels of each row end, behind where those of the first begin."""

    @cached_property
    def _memory(self) -> pa.Buffer:
        # Arrow's allocator gives again what it was given back. Fresh memory has to be cleared by
        # the operating system first, which takes as long as the copy.
        return pa.allocate_buffer(self._capacity)

    def add(self, row: dict[str, Any], pixels: Pixels | None) -> None:
        """Append a row, and its pixels (S, S, 3) if it has some."""
        end = self._ends[-1]
        if pixels is not None:
            place = np.frombuffer(self._memory, np.uint8, pixels.size, end)
            place.reshape(pixels.shape)[:] = pixels
            end += pixels.size
        if JPEG.name in row:
            self.jpeg_bytes += len(row[JPEG.name]["file"])
        self.rows.append(row)
        self._has_pixels.append(pixels is not None)
        self._ends.append(end)

    def table(self, schema: pa.Schema) -> pa.Table:
        """All rows; what was not filled of the memory is not part of it."""
        at = schema.get_field_index(PIXELS.name)
        rows = pa.Table.from_pylist(self.rows, schema=schema.remove(at))
        end = self._ends[-1]
        pixels = pa.LargeBinaryArray.from_buffers(
            PIXELS.type,
            len(self.rows),
            [
                pa.array(self._has_pixels, pa.bool_()).buffers()[1],
                pa.py_buffer(np.array(self._ends, np.int64)),
                self._memory.slice(0, end) if end else pa.py_buffer(b""),
            ],
        )
        return rows.add_column(at, schema.field(at), pixels)
