"""Where the workers of a training are: they say it when they begin, and the driver logs it."""

from __future__ import annotations

import json
import os

import ray
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.util import get_node_ip_address

_AT_WORK = "cvt-batch-at-work-"


def say_at_work(run_id: str, rank: int, step: int) -> None:
    """Tell the driver that this process begins, from a step on."""
    told = {"host": get_node_ip_address(), "process": os.getpid(), "step": step}
    _internal_kv_put(_key(run_id, rank), json.dumps(told).encode(), overwrite=True)


class Whereabouts:
    """What the driver knows of the workers of a training."""

    def __init__(self, run_id: str, workers: int, steps: int) -> None:
        """Forget what those of an earlier start have said.

        Args:
            steps: of the whole training.
        """
        self._keys = [_key(run_id, rank) for rank in range(workers)]
        self._steps = steps
        self._known: list[bytes] = []
        for key in self._keys:
            _internal_kv_del(key)

    def news(self) -> str | None:
        """A line for the log if the workers have begun, or have begun again."""
        found = [_internal_kv_get(key) for key in self._keys]
        told = [one for one in found if one is not None]
        changed = sum(one not in self._known for one in told)
        if not changed or changed < len(self._keys):  # all of them begin together
            return None
        lost = _hosts(self._known)
        ended = _what_ended(lost) if lost else ""
        self._known = told  # not before: whoever could not be asked is asked again
        step, hosts = json.loads(told[0])["step"], " and ".join(_hosts(told))
        if ended:
            return f"{ended}; training goes on from step {step}, on {hosts}"
        if step:
            return f"training goes on from step {step} of {self._steps}, on {hosts}"
        return f"training {self._steps} steps on {hosts}"


def _what_ended(hosts: list[str]) -> str:
    """Why workers that were on these hosts have begun again."""
    alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    gone = [host for host in hosts if host not in alive]
    return f"the host {' and '.join(gone)} was lost" if gone else "a worker ended"


def _hosts(told: list[bytes]) -> list[str]:
    return list(dict.fromkeys(json.loads(one)["host"] for one in told))


def _key(run_id: str, rank: int) -> str:
    return f"{_AT_WORK}{run_id}-{rank}"
