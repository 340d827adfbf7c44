"""A run over several nodes, simulated on this machine with a raylet each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.cluster_utils import Cluster

from jobs.bench.measure import machine
from jobs.bench.measure.fresh_process import Measured, measure
from pipeline.contract.spec import RunSpec

OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Split:
    """A run over nodes."""

    measured: Measured
    cpus_per_node: int

    def rows(self) -> list[tuple[str, int, int]]:
        """(node, images decoded there, images inferred there)."""
        counted = sorted(self.measured.by_node.items())
        return [
            (node[:8], int(numbers.get("decoded", 0)), int(numbers.get("inferred", 0)))
            for node, numbers in counted
            if "decoded" in numbers or "inferred" in numbers
        ]


def run_on_nodes(spec: RunSpec, nodes: int) -> Split:
    """Run with this machine's cores divided between nodes; the head has none."""
    cpus = max(machine.cores() // nodes, 1)
    with _cluster(nodes, cpus):
        return Split(measure(spec), cpus)


@contextmanager
def _cluster(nodes: int, cpus: int) -> Iterator[None]:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # only for this process
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()
