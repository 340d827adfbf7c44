"""A Ray of its own for a contestant: the cores that it was given, and a card if it has one."""

from __future__ import annotations

import ray

from jobs.bench.contest.peers.entry import START_SECONDS, Entry
from pipeline.stages.cluster.environment import use_own_token
from pipeline.stages.cluster.imports import OurImports


def start_ray(entry: Entry) -> None:
    """Start it; with a card, nothing is read before the actor on it is ready."""
    use_own_token()
    ray.init(
        address="local",
        num_cpus=entry.cores,
        num_gpus=1 if entry.on_gpu else None,
        include_dashboard=False,
        job_config=OurImports(elsewhere=False),
    )
    if entry.on_gpu:  # or all images could be read before the clock starts
        ray.data.DataContext.get_current().wait_for_min_actors_s = START_SECONDS
