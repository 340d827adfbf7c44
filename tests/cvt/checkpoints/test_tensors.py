"""Files that are not what their names say, and tensors that are no weights."""

import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cvt import CheckpointError, CvtForImageClassification
from tests.support.models.oracle import Oracle

load = CvtForImageClassification.from_pretrained


def small_state(small: Oracle) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in small.state_dict().items()}


FAKES: dict[str, tuple[bytes, str]] = {
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 80000000\n",
        "is a pointer of Git LFS",
    ),
    "a login": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
    "S3's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "JSON": (b'{"error": "not found"}', "is not a complete"),
    "a plain pickle": (
        pickle.dumps([1, 2, 3]),
        "is not a complete|holds more than",
    ),
}


@pytest.mark.parametrize("fake", FAKES)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tf_model.h5"])
def test_what_lies_in_place_of_a_file(
    fake: str, name: str, small_dir: Path, tmp_path: Path
) -> None:
    content, message = FAKES[fake]
    shutil.copy(small_dir / "config.json", tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_a_program_of_torchscript(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="is a program of TorchScript"):
        load(tmp_path / "m.pt")


KINDS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "int8": (lambda t: (100 * t).to(torch.int8), "is int8, and nothing says what scales it"),
    "uint8": (lambda t: (100 * t).to(torch.uint8), "is uint8, and nothing"),
    "int64": (lambda t: t.to(torch.int64), "is int64, and nothing"),
    "bool": (lambda t: t > 0, "is bool, and nothing"),
    "complex64": (lambda t: t.to(torch.complex64), "is complex64, and nothing"),
    "sparse": (lambda t: t.to_sparse(), "is not a dense array"),
    "quantized": (
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "is not a dense array",
    ),
    "meta": (lambda t: t.to("meta"), "is not a dense array"),
    "NaN": (lambda t: torch.full_like(t, torch.nan), "holds NaN or infinity"),
    "infinity": (lambda t: torch.full_like(t, -torch.inf), "holds NaN or infinity"),
    "beyond float32": (lambda t: t.double() * 1e300, "holds NaN or infinity"),
    "one NaN": (lambda t: t.index_fill(0, torch.tensor([0]), torch.nan), "holds NaN or infinity"),
}


@pytest.mark.filterwarnings("ignore:.*(quantize|TypedStorage|beta state)")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "cvt.encoder.stages.2.layers.1.intermediate.dense.weight",
        "classifier.weight",
        "layernorm.bias",
        "cvt.encoder.stages.0.layers.0.attention.attention.convolution_projection_key"
        ".convolution_projection.normalization.running_mean",
    ],
    ids=["weight", "head", "norm", "statistic"],
)
def test_weights_of_other_kinds_are_named(
    kind: str, name: str, small: Oracle, small_dir: Path, tmp_path: Path
) -> None:
    change, message = KINDS[kind]
    shutil.copy(small_dir / "config.json", tmp_path)
    state = small_state(small)
    state[name] = change(state[name])
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=f"{name} {message}"):
        load(tmp_path)
    if kind not in ("sparse", "quantized", "meta"):
        (tmp_path / "pytorch_model.bin").unlink()
        safetensors.torch.save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=f"{name} {message}"):
            load(tmp_path)


@pytest.mark.parametrize("name", ["classifier.weight", "layernorm.weight"])
def test_weights_that_are_all_zeros(
    name: str, small: Oracle, small_dir: Path, tmp_path: Path
) -> None:
    """A head before its training, or the end of a file that was reserved and never filled."""
    shutil.copy(small_dir / "config.json", tmp_path)
    data = bytearray(safetensors.torch.save(small_state(small)))
    data[-50_000:] = bytes(50_000)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="holds nothing but zeros: it was never trained"):
        load(tmp_path)
    state = small_state(small)
    state[name].zero_()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds nothing but zeros"):
        load(tmp_path)
    state = small_state(small)
    state[name.replace("weight", "bias")].zero_()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    load(tmp_path)


def test_parameters_without_buffers(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    shutil.copy(small_dir / "config.json", tmp_path)
    torch.save(dict(small.named_parameters()), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"They are parameters alone: save what state_dict"):
        load(tmp_path)
    torch.save(small.state_dict(keep_vars=True), tmp_path / "pytorch_model.bin")
    load(tmp_path)


def test_a_negative_variance(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    shutil.copy(small_dir / "config.json", tmp_path)
    state = small_state(small)
    name = next(name for name in state if name.endswith("running_var"))
    state[name][0] = -1
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=f"{name} holds a negative variance"):
        load(tmp_path)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str
)
def test_floats_of_any_width_are_read(
    dtype: torch.dtype, small: Oracle, small_dir: Path, tmp_path: Path
) -> None:
    shutil.copy(small_dir / "config.json", tmp_path)
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in small_state(small).items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = state["classifier.weight"].float()
    assert torch.equal(model.get_parameter("head.weight"), expected)
