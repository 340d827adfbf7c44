"""What a CPU has in hardware, and what OpenVINO makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cvt import CvtForImageClassification
from cvt.inference import linear, openvino
from cvt.inference.linear import cpu_flags, cpu_has
from cvt.inference.network import InferenceCvt
from cvt.inference.openvino_graph import OpenVinoGraph, to_openvino

CASCADE_LAKE = "fpu sse4_2 avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni"
ZEN_4 = f"{CASCADE_LAKE} avx512_bf16"
SAPPHIRE_RAPIDS = f"{CASCADE_LAKE} avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8"
GRAVITON_2 = "fp asimd evtstrm aes fphp asimdhp cpuid"
GRAVITON_3 = f"{GRAVITON_2} svei8mm i8mm bf16"


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives this machine a CPU with other flags."""

    def has(flags: str) -> None:
        monkeypatch.setattr(linear, "cpu_flags", lambda: frozenset(flags.split()))

    return has


@pytest.mark.parametrize(
    ("flags", "bfloat16", "float16"),
    [
        (CASCADE_LAKE, False, False),
        (ZEN_4, True, False),
        (SAPPHIRE_RAPIDS, True, True),
        (GRAVITON_2, False, True),
        (GRAVITON_3, True, True),
        ("", False, False),
    ],
)
def test_what_a_cpu_has(
    cpu: Callable[[str], None], flags: str, bfloat16: bool, float16: bool
) -> None:
    cpu(flags)
    assert (cpu_has(torch.bfloat16), cpu_has(torch.float16)) == (bfloat16, float16)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu bf16x\nvmx flags\t: bf16\n\nflags\t: fpu\n", "fpu bf16x"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp bf16\n", "fp bf16"),
        ("nothing of the kind", ""),
    ],
)
def test_flags_are_those_of_the_first_processor(
    monkeypatch: pytest.MonkeyPatch, text: str, flags: str
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert cpu_flags.__wrapped__() == frozenset(flags.split())


def test_where_nothing_tells_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_flags.__wrapped__() == frozenset()


def hint(network: Any) -> str:
    """The precision of a compiled network."""
    network(torch.zeros(1, 3, 64, 64))
    found: str = network.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return found


@pytest.mark.parametrize(("flags", "beside"), [(CASCADE_LAKE, "f32"), (ZEN_4, "bf16")])
def test_what_is_not_quantised_computes_in_what_the_cpu_has(
    monkeypatch: pytest.MonkeyPatch,
    cpu: Callable[[str], None],
    shallow: CvtForImageClassification,
    flags: str,
    beside: str,
) -> None:
    """To quantise takes a minute and is another's test; of others the dtype is as asked for."""

    def unchanged(network: torch.nn.Module, calibration: object) -> OpenVinoGraph:
        return OpenVinoGraph.of(to_openvino(network, (-1, 3, 64, 64)), (64, 64))

    monkeypatch.setattr(openvino, "quantized", unchanged)
    cpu(flags)
    network = InferenceCvt(shallow)
    assert hint(openvino.OpenVinoCvt(network, torch.int8)) == beside
    assert hint(openvino.OpenVinoCvt(network, torch.bfloat16)) == "bf16"
    assert hint(openvino.OpenVinoCvt(network, torch.float32)) == "f32"
