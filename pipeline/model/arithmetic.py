"""What a run computes in: the dtype it was given, that of the rows it joins, or what suits.

A run has one arithmetic, since numbers are comparable only within one. ``auto`` leaves the choice
to the output, and if that has no rows yet, to the hardware of the places that will compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast, get_args

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import Dtype, ModelSpec, Runtime, has_dtype

_NAMED: Final = 3
"""Nodes that a message names; of others it says how many there are."""
_COST: Final[dict[tuple[Dtype, Runtime], str]] = {
    ("bfloat16", "torch"): "about three times slower than float32",
    ("bfloat16", "openvino"): "about fifty times slower than float32",
    ("float16", "torch"): "about nine times slower than float32",
}
"""Of a dtype that a CPU only emulates: CvT-13 on Cascade Lake; float16 on a later one that was held
to the same instructions."""
_COST_ON_GPU: Final = "expect it to be slower than float32"


@dataclass(frozen=True)
class Place:
    """A machine's CPU or GPUs, where actors compute."""

    device: str
    """"CPU", or the name of a GPU."""
    dtypes: frozenset[Dtype]
    """Those that it has in hardware."""
    on_gpu: bool = False
    host: str | None = None
    """Of a node of a cluster; None of this machine."""

    @property
    def name(self) -> str:
        """As it stands in a sentence."""
        return f"this {self.device}" if self.host is None else f"the {self.device} of {self.host}"


@dataclass(frozen=True)
class Kept:
    """Rows that stand already, which those of a run will join."""

    dtype: str
    whose: str
    """As it stands in a sentence."""


@dataclass(frozen=True)
class Arithmetic:
    """What was chosen, and why."""

    dtype: Dtype
    why: str = "as asked for"
    """Continues a sentence after the dtype."""
    warning: str | None = None
    """What it costs, in one line, where hardware only emulates it."""

    def __str__(self) -> str:
        return f"{self.dtype}, {self.why}"


def choose(
    model: ModelSpec, kept: Kept | None, places: Callable[[], Sequence[Place]]
) -> Arithmetic:
    """The arithmetic of a run.

    Args:
        kept: the rows that those of this run will join.
        places: says where the run will compute, at least one place; called only if the answer
            matters.

    Raises:
        UsageError: the hardware or the runtime lacks the dtype that was given or kept.
    """
    if model.dtype != "auto":
        found = Arithmetic(model.dtype)
    elif kept is None or kept.dtype not in get_args(Dtype):  # written by another version
        return _fastest(places())
    else:
        found = Arithmetic(cast(Dtype, kept.dtype), f"as in {kept.whose}")
        _check_runtime(found.dtype, model.runtime, kept)
    if found.dtype == "float32":
        return found
    stands = kept is not None and kept.dtype == found.dtype
    warning = _warning(found.dtype, model.runtime, places(), stands=stands)
    return Arithmetic(found.dtype, found.why, warning)


def _fastest(places: Sequence[Place]) -> Arithmetic:
    """bfloat16 if every place has it, for rows that join none."""
    lacking = [place for place in places if "bfloat16" not in place.dtypes]
    if lacking:
        has = "has" if len(lacking) == 1 else "have"
        return Arithmetic("float32", f"as {_these(lacking, places)} {has} no bfloat16 in hardware")
    if len(places) == 1:
        return Arithmetic("bfloat16", f"which {places[0].name} has in hardware")
    return Arithmetic("bfloat16", f"which all {len(places)} nodes have in hardware")


def _warning(
    dtype: Dtype, runtime: Runtime, places: Sequence[Place], *, stands: bool
) -> str | None:
    """What a dtype costs on hardware that lacks it; None if all places have it.

    Raises:
        UsageError: they lack tf32, which nothing emulates.
    """
    lacking = [place for place in places if dtype not in place.dtypes]
    if not lacking:
        return None
    where = _these(lacking, places)
    if stands:
        advice = f"the output is in {dtype}; <policy.full> with <model.dtype> auto redoes it"
    else:
        advice = "drop <model.dtype> or say auto"
    if dtype == "tf32":
        raise UsageError(
            f"tf32 needs NVIDIA GPUs from Ampere on and cannot run on {where}; {advice}"
        )
    cost = _COST_ON_GPU if lacking[0].on_gpu else _COST[dtype, runtime]
    return f"{dtype} is emulated on {where}: {cost}; {advice}"


def _these(some: Sequence[Place], places: Sequence[Place]) -> str:
    """Some of the places, as they stand in a sentence."""
    if len(places) == 1:
        return places[0].name
    names = ", ".join(str(place.host) for place in some[:_NAMED])
    more = ", ..." if len(some) > _NAMED else ""
    return f"{len(some)} of {len(places)} nodes ({names}{more})"


def _check_runtime(dtype: Dtype, runtime: Runtime, kept: Kept) -> None:
    if not has_dtype(runtime, dtype):
        raise UsageError(
            f"{kept.whose} is in {dtype}, which <model.runtime> {runtime} does not have; drop "
            "<model.runtime>, or redo everything with <policy.full>"
        )


def this_cpu() -> Place:
    """The CPU of the machine that calls this."""
    import torch  # the choice itself needs none

    from cvt.inference.linear import cpu_has

    halves: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    had = [name for name, dtype in halves.items() if cpu_has(dtype)]
    return Place("CPU", frozenset({"float32", *had}))


def this_gpu() -> Place | None:
    """The GPUs of the machine that calls this, assumed to be alike; None if it has none."""
    import torch

    if not torch.cuda.is_available():
        return None
    had: set[Dtype] = {"float32", "float16"}
    if torch.cuda.is_bf16_supported(including_emulation=False):
        had.add("bfloat16")
    if torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0):
        had.add("tf32")
    return Place(torch.cuda.get_device_name(), frozenset(had), on_gpu=True)
