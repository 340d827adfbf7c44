"""What a decode task costs beyond decoding, in CPU time, an image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.measure.inputs import work_of
from pipeline.contract.schema import DECODED
from pipeline.contract.spec import ComputeSpec, CpuDecodeMode, InputSpec
from pipeline.model.network import Decoded, Pixels
from pipeline.sources.fetch import fetch_items
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.storage.filesystems import WorkerEnvironment

TASKS, BLOCKS_OF_A_TASK = 6, 6


@dataclass(frozen=True)
class Blank:
    """A `Preprocessing` that looks at no bytes: all images are the same noise."""

    pixels: Pixels

    @property
    def size(self) -> int:
        return len(self.pixels)

    def decode(self, data: bytes, *, mode: CpuDecodeMode, max_pixels: int) -> Decoded:
        return Decoded(self.pixels, self.size, self.size)

    def to_dict(self) -> dict[str, Any]:
        return {}

    @property
    def of_pixels(self) -> dict[str, Any]:
        return {}


def bench_feed(inputs: list[str], images: int, rows: int, size: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds an image of each part, of the median round; Ray is started for its part.

    Args:
        inputs: of single images, which are read again in every round.
        images: how many of them a task has.
        rows: of a block.
        size: of the model's input.
        rounds: of the parts without Ray.
    """
    spec = InputSpec(uris=tuple(inputs))
    work = pa.concat_tables(work_of(spec, images).images).combine_chunks()
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    settings = DecodeSettings(
        preprocessing=Blank(noise),
        environment=WorkerEnvironment.capture(),
        max_pixels=spec.max_pixels,
        max_bytes=spec.max_bytes,
        block_size=rows,
    )
    data = [item.data or b"" for item in fetch_items(work, spec.max_bytes)]
    parts: dict[str, Callable[[], object]] = {
        "fetch": lambda: [None for _ in fetch_items(work, spec.max_bytes)],
        "hash": lambda: [hashlib.sha256(image).hexdigest() for image in data],
        "all of the task": lambda: [None for _ in decode_block(work, settings)],
    }
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            started = time.process_time()
            part()
            taken[name].append(1000 * (time.process_time() - started) / len(work))
    found = {name: float(np.median(values)) for name, values in taken.items()}
    whole = found.pop("all of the task")
    found["rows and pixels"] = max(whole - sum(found.values()), 0.0)
    return found | _ray(settings)


def _ray(settings: DecodeSettings) -> dict[str, float]:
    """Its part in the task, and the driver's."""
    from pipeline.stages.allocation import Allocation
    from pipeline.stages.cluster.ray_session import ray_session
    from pipeline.stages.graph import decode_stage, source

    with ray_session(ComputeSpec(num_gpus=0)) as room:
        allocation: Allocation = room
        blocks = [pa.table({"task": [number]}) for number in range(TASKS)]
        decode = partial(_yield_blocks, settings=settings)
        done = decode_stage(source(blocks, settings), decode, allocation)
        started = time.process_time()
        spent = [
            float(table["size_bytes"][0].as_py())
            for table in done.iter_batches(batch_format="pyarrow", batch_size=None)
        ]
        driver = time.process_time() - started
    rows = settings.block_size
    return {
        "Ray, in the task": float(np.median([nanoseconds for nanoseconds in spent if nanoseconds]))
        / 1e6
        / rows,
        "Ray, on the driver": 1000 * driver / len(spent) / rows,
    }


def _yield_blocks(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """Full blocks; each says in place of its size what handing on the one before it took, in
    nanoseconds of CPU time."""
    rows, image = settings.block_size, settings.preprocessing.decode(b"", mode="fast", max_pixels=0)
    spent = 0
    for _ in range(BLOCKS_OF_A_TASK):
        memory = pa.allocate_buffer(rows * settings.image_bytes)
        np.frombuffer(memory, np.uint8).reshape(rows, -1)[:] = image.pixels.reshape(-1)
        offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int64) * settings.image_bytes)
        known = {
            "uri": pa.array([f"/photos/{number:09d}.jpg" for number in range(rows)]),
            "status": pa.array(["ok"] * rows),
            "size_bytes": pa.array([spent] * rows),
            "_pixels": pa.LargeBinaryArray.from_buffers(
                DECODED.field("_pixels").type, rows, [None, offsets, memory]
            ),
        }
        columns = [known.get(f.name, pa.nulls(rows, f.type)) for f in DECODED]
        started = time.process_time_ns()
        yield pa.table(columns, schema=DECODED)
        spent = time.process_time_ns() - started
