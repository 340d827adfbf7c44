"""Waves of work, of which only the numbers and sizes count."""

import pyarrow as pa

from pipeline.plan.diff import Work


def images(number: int, size_bytes: int | None = None) -> Work:
    """Every second of them without a size, as those are that a list names."""
    sizes = pa.array([size_bytes, None] * (number // 2) + [size_bytes] * (number % 2), pa.int64())
    return Work(images=(pa.table({"size_bytes": sizes}),))


def shards(number: int) -> Work:
    return Work(shards=(pa.table({"uri": pa.nulls(number, pa.string())}),))
