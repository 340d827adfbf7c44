"""Which arithmetic a run has: the decision for every hardware, runtime and state of an output."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ModelSpec
from pipeline.model.arithmetic import Arithmetic, Kept, Place, choose, this_cpu, this_gpu

OLD_CPU = Place("CPU", frozenset({"float32"}))
NEW_CPU = Place("CPU", frozenset({"float32", "bfloat16", "float16"}))
T4 = Place("Tesla T4", frozenset({"float32", "float16"}), on_gpu=True)
H100 = Place("NVIDIA H100", frozenset({"float32", "tf32", "bfloat16", "float16"}), on_gpu=True)
KEPT = "the closed run R"


def nodes(*places: Place) -> list[Place]:
    """The same as nodes of a cluster."""
    return [Place(p.device, p.dtypes, p.on_gpu, f"10.0.0.{n}") for n, p in enumerate(places)]


def decide(
    places: Sequence[Place], dtype: Any = "auto", kept: str | None = None, runtime: Any = "torch"
) -> Arithmetic:
    model = ModelSpec(source="m", dtype=dtype, runtime=runtime)
    return choose(model, None if kept is None else Kept(kept, KEPT), lambda: places)


@pytest.mark.parametrize(
    ("places", "decision"),
    [
        ([NEW_CPU], "bfloat16, which this CPU has in hardware"),
        ([OLD_CPU], "float32, as this CPU has no bfloat16 in hardware"),
        ([H100], "bfloat16, which this NVIDIA H100 has in hardware"),
        ([T4], "float32, as this Tesla T4 has no bfloat16 in hardware"),
        (nodes(NEW_CPU), "bfloat16, which the CPU of 10.0.0.0 has in hardware"),
        (nodes(OLD_CPU), "float32, as the CPU of 10.0.0.0 has no bfloat16 in hardware"),
        (nodes(NEW_CPU, NEW_CPU), "bfloat16, which all 2 nodes have in hardware"),
        (
            nodes(NEW_CPU, OLD_CPU, NEW_CPU),
            "float32, as 1 of 3 nodes (10.0.0.1) has no bfloat16 in hardware",
        ),
        (
            nodes(*[T4] * 4, H100),
            "float32, as 4 of 5 nodes (10.0.0.0, 10.0.0.1, 10.0.0.2, ...) have no bfloat16 in "
            "hardware",
        ),
    ],
)
def test_a_new_output_takes_what_every_place_has(places: list[Place], decision: str) -> None:
    found = decide(places)
    assert str(found) == decision
    assert found.warning is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_that_stand_decide_whatever_the_hardware_has(dtype: str) -> None:
    found = decide([NEW_CPU], kept=dtype)
    assert found == Arithmetic(dtype, "as in the closed run R")  # type: ignore[arg-type]


def test_float32_asks_no_hardware() -> None:
    def nobody() -> list[Place]:
        raise AssertionError("asked")

    for dtype, kept in (("auto", Kept("float32", KEPT)), ("float32", None)):
        model = ModelSpec(source="m", dtype=dtype)  # type: ignore[arg-type]
        assert choose(model, kept, nobody).dtype == "float32"


@pytest.mark.parametrize("kept", ["", "int8"])
def test_rows_of_an_arithmetic_that_nobody_knows_do_not_decide(kept: str) -> None:
    """They are refused by their identity, with both side by side."""
    assert decide([NEW_CPU], kept=kept).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("places", "dtype", "runtime", "warning"),
    [
        ([NEW_CPU], "bfloat16", "torch", None),
        ([NEW_CPU], "float16", "torch", None),
        ([H100], "tf32", "torch", None),
        ([T4], "float16", "torch", None),
        ([OLD_CPU], "bfloat16", "torch", "bfloat16 is emulated on this CPU: about three times"),
        ([OLD_CPU], "bfloat16", "openvino", "bfloat16 is emulated on this CPU: about fifty times"),
        ([OLD_CPU], "float16", "torch", "float16 is emulated on this CPU: about nine times"),
        ([T4], "bfloat16", "torch", "bfloat16 is emulated on this Tesla T4: expect it to be"),
        (
            nodes(NEW_CPU, OLD_CPU),
            "bfloat16",
            "torch",
            "bfloat16 is emulated on 1 of 2 nodes (10.0.0.1): about three times",
        ),
    ],
)
def test_what_is_only_emulated_is_warned_about(
    places: list[Place], dtype: str, runtime: str, warning: str | None
) -> None:
    found = decide(places, dtype, runtime=runtime)
    assert str(found) == f"{dtype}, as asked for"
    if warning is None:
        assert found.warning is None
        return
    assert found.warning is not None
    assert found.warning.startswith(warning)
    assert "slower than float32; drop <model.dtype> or say auto" in found.warning
    kept = decide(places, kept=dtype, runtime=runtime).warning
    assert kept is not None
    assert kept.startswith(warning)
    assert kept.endswith("<policy.full> with <model.dtype> auto redoes it")
    assert decide(places, dtype, kept=dtype, runtime=runtime).warning == kept


@pytest.mark.parametrize(
    ("places", "where"),
    [
        ([NEW_CPU], "this CPU"),
        ([T4], "this Tesla T4"),
        (nodes(H100, T4), r"1 of 2 nodes \(10\.0\.0\.1\)"),
    ],
)
def test_tf32_is_refused_where_it_is_not(places: list[Place], where: str) -> None:
    with pytest.raises(UsageError, match=rf"tf32 needs NVIDIA GPUs .* run on {where}; drop"):
        decide(places, "tf32")
    with pytest.raises(UsageError, match=rf"{where}; the output is in tf32; policy\.full with"):
        decide(places, kept="tf32")


@pytest.mark.parametrize("kept", ["float16", "tf32"])
def test_rows_that_the_runtime_cannot_continue_are_refused(kept: str) -> None:
    complaint = f"the closed run R is in {kept}, which model.runtime openvino does not have; drop"
    with pytest.raises(UsageError, match=complaint):
        decide([NEW_CPU], kept=kept, runtime="openvino")


@pytest.mark.parametrize(
    ("flags", "dtypes"),
    [
        ("avx512f avx512_vnni", {"float32"}),
        ("avx512_bf16", {"float32", "bfloat16"}),
        ("amx_bf16 avx512_fp16", {"float32", "bfloat16", "float16"}),
    ],
)
def test_this_cpu(monkeypatch: pytest.MonkeyPatch, flags: str, dtypes: set[str]) -> None:
    monkeypatch.setattr("cvt.inference.linear.cpu_flags", lambda: frozenset(flags.split()))
    assert this_cpu() == Place("CPU", frozenset(dtypes))  # type: ignore[arg-type]
    assert this_cpu().name == "this CPU"


@pytest.mark.parametrize(
    ("capability", "hip", "dtypes"),
    [
        ((7, 5), None, {"float32", "float16"}),
        ((8, 0), None, {"float32", "float16", "bfloat16", "tf32"}),
        ((9, 4), "6.2", {"float32", "float16", "bfloat16"}),
    ],
)
def test_this_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, dtypes: Any
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    properties = SimpleNamespace(major=capability[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert this_gpu() == Place("a card", frozenset(dtypes), on_gpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu() -> None:
    assert this_gpu() is None
