"""Pictures of the images that a person may be shown, made where their pixels are.

Which images those are is known only at the end of a run. So every actor keeps a picture of each
image that would be in the queue if the run ended now: the later, the fewer they are, about
``size * (1 + log(images / size))`` of each kind. Whatever is in the queue at the end was in that of
its actor, for it has fewer rivals there.
"""

from __future__ import annotations

import io
from bisect import insort
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.contract.corrections import Queue
from pipeline.contract.schema import PICTURE, Status
from pipeline.monitoring.review.queue import LARGEST_FIRST, ReviewQueue

PICTURE_PIXELS = 256
"""The longest side; most networks see less of an image."""

Pixels = npt.NDArray[np.uint8]


@dataclass
class Shortlist:
    """The places in the queue, and who would have them so far."""

    queue: ReviewQueue
    """That decides; it is left as it is."""
    places: dict[Queue, list[tuple[float, str]]] = field(default_factory=dict)
    """Values, the smaller the better, and URIs; the best first."""

    def choose(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """(B,): which rows of a table get a place, whatever they will be worth later."""
        positions = np.flatnonzero(pc.equal(table["status"], Status.OK.value).to_numpy())
        rows = table.take(pa.array(positions))
        uris = rows["uri"].to_pylist()
        chosen = np.zeros(len(table), bool)
        for reason, values in self.queue.ranked(rows) if uris else ():
            ranks = -values if reason in LARGEST_FIRST else values
            for at in np.flatnonzero(np.isfinite(ranks)):
                chosen[positions[at]] |= self._enters(reason, (float(ranks[at]), uris[at]))
        return chosen

    def _enters(self, reason: Queue, rival: tuple[float, str]) -> bool:
        places = self.places.setdefault(reason, [])
        if len(places) >= self.queue.size and rival >= places[-1]:
            return False
        insort(places, rival)
        del places[self.queue.size :]
        return True


def with_pictures(table: pa.Table, pixels: Mapping[int, Pixels]) -> pa.Table:
    """The table and a picture of the rows whose pixels (S, S, 3) are given, by their positions."""
    files = [small_jpeg(pixels[at], PICTURE_PIXELS) if at in pixels else None
             for at in range(len(table))]  # fmt: skip
    return table.append_column(PICTURE, pa.array(files, PICTURE.type))


def pictures_for(queue: ReviewQueue, table: pa.Table) -> pa.ChunkedArray:
    """The pictures of a table, but for those of rows that have no place in a queue of their own."""
    own = deepcopy(queue)
    own.add(table)
    has_place = pc.is_in(table["uri"], own.table()["uri"].combine_chunks())
    return pc.if_else(has_place, table[PICTURE.name], pa.scalar(None, PICTURE.type))


def small_jpeg(pixels: Pixels, longest: int) -> bytes:
    """An image (H, W, 3) as a JPEG file, made smaller if a side is longer than this."""
    image = Image.fromarray(pixels)
    if max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.BILINEAR, reducing_gap=None)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()
