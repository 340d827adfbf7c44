"""Hosts that do not reach the storage, though others do: what they were to read there must not fail
for it, and a run goes on without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_node_ip_address

from pipeline.contract.errors import CutOffError, LostNodesError, RunError
from pipeline.storage.filesystems import STORAGE_ERRORS, answers
from pipeline.storage.retry import PassingError
from pipeline.storage.uris import split_uri

_NODE_ID = "ray.io/node-id"
"""The label that Ray gives every node."""
_ADVICE = "start the same command again once it does"
PROBES = 3
"""Of a store, before it counts as silent: one may be lost, or slow."""
_left_out: set[str] = set()
"""Nodes, by what Ray calls them."""


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Storage that fails inside is asked whether it answers this host at all.

    Raises:
        CutOffError: it does not.
    """
    try:
        yield
    except STORAGE_ERRORS as error:
        check_reach([uri], error)
        raise


def check_failure(uri: str, error: Exception, stores: Iterable[str]) -> None:
    """Make sure that what failed to be read did not fail for this host alone.

    Args:
        uri: of what was to be read.
        error: why it was not.
        stores: URIs in stores that others of the run have reached.

    Raises:
        CutOffError: such a store of the same kind does not answer.
    """
    may_be_silence = isinstance(error, PassingError) and error.code in ("timeout", "storage_error")
    if may_be_silence:
        protocol = split_uri(uri)[0]
        check_reach((one for one in stores if split_uri(one)[0] == protocol), error)


def check_reach(stores: Iterable[str], error: Exception) -> None:
    """Raises CutOffError if one of the stores does not answer."""
    for uri in stores:
        if not _is_reached(uri):
            raise CutOffError(
                f"the host {get_node_ip_address()} does not reach {uri}", _this_node(), uri
            ) from error


def _is_reached(uri: str) -> bool:
    return any(answers(uri) for _ in range(PROBES))


def _this_node() -> str:
    node: str = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return node


@contextmanager
def leaving_out() -> Iterator[None]:
    """A host that a task inside found cut off is left out of what follows. For the driver, while it
    is connected to Ray.

    Raises:
        LostNodesError: another attempt can go on with the others.
        RunError: it is the driver's own, or the last one, or the store does not answer the driver
            either, so that no host is to blame.
    """
    try:
        yield
    except (RayError, CutOffError) as error:
        cut = getattr(error, "cause", error)
        if not isinstance(cut, CutOffError):
            raise
        if not _is_reached(cut.uri):
            raise RunError(f"the run stopped: {cut.uri} does not answer; {_ADVICE}") from error
        told = str(cut).splitlines()[0]  # Ray Data adds advice of its own
        if _leave_out(cut.node_id):
            raise LostNodesError(f"{told}, but others do") from error
        raise RunError(f"the run stopped: {told}; {_ADVICE}") from error


def _leave_out(node_id: str) -> bool:
    """Have nothing more started on a node; False if it is that of this process, or the last one."""
    others = {
        node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
    } - {*_left_out, node_id}
    if not others or node_id in ("", _this_node()):
        return False
    _left_out.add(node_id)
    return True


def is_left_out(node_id: str) -> bool:
    """Whether nothing is started on the node any more."""
    return node_id in _left_out


def take_back() -> None:
    """Forget which nodes were left out: the next run tries them again."""
    _left_out.clear()


def elsewhere() -> dict[str, Any]:
    """Options of a task or an actor that keep it away from nodes that were left out."""
    if not _left_out:
        return {}
    return {"label_selector": {_NODE_ID: f"!in({', '.join(sorted(_left_out))})"}}
