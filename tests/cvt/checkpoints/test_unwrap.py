"""What training loops leave around the weights, in pickles and in safetensors alike."""

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from cvt import CheckpointError, CvtForImageClassification
from tests.support.models.layout_writers import microsoft_state
from tests.support.models.oracle import Oracle, difference, images

X = images(1, 32, 32)
State = dict[str, Tensor]


def below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def within(wrapper: str, after: str, state: Mapping[str, Tensor]) -> State:
    """With a wrapper around each module of this name, as its parameters see it."""
    return {name.replace(f"{after}.", f"{after}.{wrapper}."): t for name, t in state.items()}


def spoilt(state: Mapping[str, Tensor]) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


OPTIMIZER = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}},
    "param_groups": [],
}
FLAT: dict[str, Callable[[State], State]] = {
    "torch.compile": lambda s: below("_orig_mod.", s),
    "DDP": lambda s: below("module.", s),
    "DDP of a compiled model": lambda s: below("module._orig_mod.", s),
    "a compiled DDP": lambda s: below("_orig_mod.module.", s),
    "compiled blocks": lambda s: within("_orig_mod", "layers.0", s),
    "FSDP": lambda s: below("_fsdp_wrapped_module.", within("_fsdp_wrapped_module", "stages.1", s)),
    "checkpointed blocks": lambda s: within("_checkpoint_wrapped_module", "layers.1", s),
    "DeepSpeed in Lightning": lambda s: below("_forward_module.model.", s),
    "Lightning, model": lambda s: below("model.", s),
    "Lightning, net, compiled": lambda s: below("net._orig_mod.", s),
    "Lightning, a loss with weights": lambda s: below("model.", s) | {"loss.weight": torch.ones(7)},
    "two levels": lambda s: below("student.backbone.", s),
    "AveragedModel": lambda s: below("module.", s) | {"n_averaged": torch.tensor(9)},
    "steps beside": lambda s: s | {"epoch": torch.tensor(9), "decay": torch.tensor(0.9)},
    "an average beside": lambda s: below("model.", spoilt(s)) | below("model_ema.", s),
    "ema-pytorch": lambda s: (
        below("online_model.", spoilt(s)) | below("ema_model.", s) | {"initted": torch.tensor(True)}
    ),
    "student and teacher": lambda s: (
        below("student.module.", spoilt(s)) | below("teacher.module.", s)
    ),
    "an average of parameters alone": lambda s: (
        s | below("ema.", {n: torch.zeros_like(t) for n, t in s.items() if "running" not in n})
    ),
    "an average within the model": lambda s: s | below("ema.", s) | {"ema.step": torch.tensor(1)},
}
NESTED: dict[str, Callable[[State], Any]] = {
    "Lightning": lambda s: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": below("model.", s),
        "optimizer_states": [OPTIMIZER],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
        "hyper_parameters": {"lr": 1e-3},
    },
    "timm": lambda s: {
        "arch": "cvt",
        "state_dict": spoilt(s),
        "state_dict_ema": s,
        "optimizer": OPTIMIZER,
        "args": argparse.Namespace(lr=0.1, output=Path("/out")),
        "metric": np.float64(81.6),
    },
    "DeepSpeed": lambda s: {
        "module": s,
        "optimizer": None,
        "dtype": torch.float16,
        "ds_version": "",
    },
    "model and model_ema": lambda s: {"model": below("module.", spoilt(s)), "model_ema": s},
    "an average and its decay": lambda s: {"ema": {"module": s, "decay": 0.99}, "epoch": 1},
    "shadow": lambda s: {"model": spoilt(s), "ema": {"shadow": s, "num_updates": torch.tensor(4)}},
    "the same twice": lambda s: {"model": s, "state_dict": s},
    "deep": lambda s: {"checkpoint": {"trainer": {"net": below("module.", s)}}},
    "a list without names beside": lambda s: {"model": s, "shadow_params": [torch.zeros(3)]},
    "a scaler and a schedule": lambda s: {
        "model": s,
        "scaler": {"scale": 65536.0, "_growth_tracker": 0},
        "lr_scheduler": {"base_lrs": [0.1], "last_epoch": 1},
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.default_rng(0).bit_generator.state,
        "old_numpy_rng": np.random.RandomState(0).get_state(),
        "confusion": np.eye(7),
    },
}


def check(small: Oracle, folder: Path, file: Path) -> None:
    small.config.save_pretrained(folder)
    with torch.inference_mode():
        expected = small(X).logits
        assert (
            difference(CvtForImageClassification.from_pretrained(folder)(X).logits, expected) < 1e-5
        )
    assert file.exists()


@pytest.mark.parametrize("loop", FLAT)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_prefixes(loop: str, name: str, small: Oracle, tmp_path: Path) -> None:
    state = {n: t.clone() for n, t in FLAT[loop](small.state_dict()).items()}
    if name.endswith(".bin"):
        torch.save(state, tmp_path / name)
    else:
        safetensors.torch.save_file(state, tmp_path / name)
    check(small, tmp_path, tmp_path / name)


@pytest.mark.parametrize("loop", NESTED)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_entries_beside(loop: str, zipped: bool, small: Oracle, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    content = NESTED[loop](small.state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    check(small, tmp_path, path)


def test_microsofts_names_in_all_of_it(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    state = below("module._orig_mod.", microsoft_state(small))
    torch.save({"state_dict": below("model.", state), "epoch": 3}, tmp_path / "m.pth")
    model = CvtForImageClassification.from_pretrained(
        tmp_path / "m.pth", config=str(small_dir / "config.json"), activation="gelu"
    )
    with torch.inference_mode():
        assert difference(model(X).logits, small(X).logits) < 1e-5


def test_the_wrappers_themselves(small: Oracle, tmp_path: Path) -> None:
    """Not their names as listed above, but what PyTorch writes."""
    averaged = torch.optim.swa_utils.AveragedModel(small, use_buffers=True)
    averaged.update_parameters(small)
    torch.save(averaged.state_dict(), tmp_path / "pytorch_model.bin")
    check(small, tmp_path, tmp_path / "pytorch_model.bin")
    compiled: Any = torch.compile(small, backend="eager")
    torch.save(compiled.state_dict(), tmp_path / "pytorch_model.bin")
    check(small, tmp_path, tmp_path / "pytorch_model.bin")
    torch.save(nn.DataParallel(small).state_dict(), tmp_path / "pytorch_model.bin")
    check(small, tmp_path, tmp_path / "pytorch_model.bin")


def test_the_choice_is_said(
    small: Oracle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = small.state_dict()
    torch.save(
        {"state_dict": spoilt(state), "state_dict_ema": state}, tmp_path / "pytorch_model.bin"
    )
    with caplog.at_level(logging.WARNING):
        check(small, tmp_path, tmp_path / "pytorch_model.bin")
    assert "takes the weights in 'state_dict_ema.', not those in 'state_dict.'" in caplog.text


def test_a_head_elsewhere_is_no_head(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    """The layer that a training loop put behind a backbone may mean anything."""
    state = below("0.", small.cvt.state_dict()) | {"1.weight": torch.ones(7, 48)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((small_dir / "config.json").read_bytes())
    model = CvtForImageClassification.from_pretrained(tmp_path, new_head=False)
    assert model.config.num_labels == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shadow_params": [torch.ones(2)], "decay": 0.9}, "the tensors in shadow_params have no"),
        ({"epoch": 3}, "does not hold a state dict"),
        ([torch.ones(2)], "does not hold a state dict"),
        ({"model": {"vit.patch.weight": torch.ones(2)}}, r"is not a CvT: .* vit\.patch\.weight"),
    ],
)
def test_without_weights_that_have_names(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match=message):
        CvtForImageClassification.from_pretrained(tmp_path / "m.bin")


def test_two_weights_of_one_name(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    state = small.state_dict()
    name = "cvt.encoder.stages.0.layers.0.output.dense.bias"
    state["cvt.module.encoder.stages.0.layers.0.output.dense.bias"] = state[name] + 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((small_dir / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=f"holds two tensors named {name}"):
        CvtForImageClassification.from_pretrained(tmp_path)


def test_a_pickle_of_dicts_in_dicts_ends(tmp_path: Path) -> None:
    """Each is looked into once, however often it occurs, and whatever it holds."""
    inner: dict[str, Any] = {"x": torch.ones(2)}
    for _ in range(50):
        inner = {str(i): inner for i in range(50)}
    inner["itself"] = inner
    torch.save(inner, tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match="does not hold a state dict"):
        CvtForImageClassification.from_pretrained(tmp_path / "m.bin")


def test_names_without_end_are_no_names(tmp_path: Path) -> None:
    """A name of a megabyte before each of many tensors, and keys that are no texts."""
    many = {str(i): torch.ones(1) for i in range(1000)}
    content = {"x" * 10**6: many, ("a",): torch.ones(1), 10**30: torch.ones(1)}
    torch.save(content, tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match="does not hold a state dict"):
        CvtForImageClassification.from_pretrained(tmp_path / "m.bin")


def test_numpys_objects_as_version_1_named_them(small: Oracle, tmp_path: Path) -> None:
    content = {"model": small.state_dict(), "best": np.float64(81.6), "confusion": np.eye(7)}
    torch.save(content, tmp_path / "new.bin", _use_new_zipfile_serialization=False)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    data = (tmp_path / "new.bin").read_bytes()
    assert new in data
    (tmp_path / "pytorch_model.bin").write_bytes(data.replace(new, old))
    check(small, tmp_path, tmp_path / "pytorch_model.bin")
