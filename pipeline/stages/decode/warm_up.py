"""Workers that are ready before there is something to decode."""

from __future__ import annotations

from typing import Any

import ray

from pipeline.model.network import Preprocessing
from pipeline.stages.allocation import Allocation
from pipeline.stages.decode.task import decode_block
from pipeline.stages.rows.write import PartSink


def warm_up(preprocessing: Preprocessing, allocation: Allocation, tasks: int) -> None:
    """Let the workers that will decode, and write, start and load their libraries while the actors
    do: Ray Data gives them nothing to do before every actor is ready. No more of them than there
    are tasks: each takes some seconds of CPU time."""
    load: Any = ray.remote(_load).options(num_cpus=allocation.decode_cpus, max_retries=0)
    for _ in range(min(tasks, allocation.decode_tasks)):
        load.remote(decode_block, PartSink, preprocessing)


def _load(*parts: object) -> None:
    """Nothing to do: a worker that is given something has loaded where it comes from."""
