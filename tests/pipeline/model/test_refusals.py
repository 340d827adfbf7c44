"""What a checkpoint lacks or has too much of is found at the door: exit code 2, one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor
from cvt.checkpoints.layouts import translate
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.loaded import LoadedModel, read_checkpoint
from tests.support.commands import call_main
from tests.support.models.checkpoints import write_checkpoint
from tests.support.models.layout_writers import write_hdf5

State = dict[str, Tensor]


def spec(source: Path, **output: Any) -> RunSpec:
    return RunSpec(
        inputs=InputSpec(uris=("in",)),
        model=ModelSpec(source=str(source)),
        output=OutputSpec(uri="out", **output),
    )


def classifying(source: Path) -> RunSpec:
    return spec(source, top_k=3)


def embedding(source: Path) -> RunSpec:
    return spec(source, top_k=None, embeddings=True)


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}


def backbone(state: State) -> State:
    return {n.removeprefix("cvt."): t for n, t in state.items() if n.startswith("cvt.")}


def as_safetensors(state: State, folder: Path) -> Path:
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return folder


def as_bin(state: State, folder: Path) -> Path:
    torch.save(
        {"state_dict": {f"model.{n}": t for n, t in state.items()}}, folder / "pytorch_model.bin"
    )
    return folder


def as_hdf5(state: State, folder: Path) -> Path:
    leaves = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    arrays = {}
    for name, tensor in state.items():
        modules, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(tensor.ndim, tuple(range(tensor.ndim)))
        scope = "cvt" if leaf == "cls_token" else f"cvt/tf_cvt/{modules.replace('.', '/')}"
        leaf = name if leaf == "cls_token" else leaves.get(leaf, leaf)
        arrays[f"{scope}/{leaf}:0"] = tensor.permute(axes).numpy()
    write_hdf5(folder / "tf_model.h5", arrays)
    return folder


def as_timms(state: State, folder: Path) -> Path:
    torch.save(
        {"state_dict": state, "state_dict_ema": state, "epoch": 3}, folder / "pytorch_model.bin"
    )
    return folder


WRITERS = [as_safetensors, as_bin, as_hdf5, as_timms]


@pytest.fixture(name="model")
def small_checkpoint(tmp_path: Path) -> tuple[Path, State]:
    """A directory without weights, and the weights."""
    folder = write_checkpoint(tmp_path / "model")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder, state


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("cut", [without_head, backbone], ids=lambda f: f.__name__)
def test_a_backbone_embeds_and_does_not_label(
    write: Callable[[State, Path], Path],
    cut: Callable[[State], State],
    model: tuple[Path, State],
) -> None:
    folder, state = model
    source = write(cut(state), folder)
    with pytest.raises(UsageError, match="the checkpoint has no classifier; ask for embeddings"):
        read_checkpoint(classifying(source))
    once, again = (LoadedModel.load(embedding(source), "float32") for _ in range(2))
    assert once.provenance.fingerprint == again.provenance.fingerprint
    assert once.classes == []


def test_a_backbone_in_microsofts_file(tmp_path: Path) -> None:
    """Recognised by its widths, which promise a thousand classes."""
    torch.manual_seed(0)
    model = CvtForImageClassification(CvtConfig())
    state = translate(model.state_dict(), "ours", "microsoft")
    torch.save({n: t for n, t in state.items() if n.startswith("stage")}, tmp_path / "m.pth")
    with pytest.raises(UsageError, match="the checkpoint has no classifier"):
        read_checkpoint(classifying(tmp_path / "m.pth"))
    assert read_checkpoint(embedding(tmp_path / "m.pth")).classes == ()


HEADS: dict[str, tuple[Callable[[State], State], str]] = {
    "no bias": (
        lambda s: {n: t for n, t in s.items() if n != "classifier.bias"},
        r"missing classifier\.bias",
    ),
    "no weight": (
        lambda s: {n: t for n, t in s.items() if n != "classifier.weight"},
        r"missing classifier\.weight",
    ),
    "more classes": (
        lambda s: s | {"classifier.weight": torch.ones(9, 32), "classifier.bias": torch.ones(9)},
        "have 9 classes, the configuration 7: correct id2label",
    ),
    "fewer classes": (
        lambda s: s | {"classifier.weight": torch.ones(1, 32), "classifier.bias": torch.ones(1)},
        "have 1 classes, the configuration 7",
    ),
    "no classes": (
        lambda s: s | {"classifier.weight": torch.ones(0, 32), "classifier.bias": torch.ones(0)},
        "have 0 classes, the configuration 7",
    ),
    "another width": (
        lambda s: s | {"classifier.weight": torch.ones(7, 31)},
        r"classifier\.weight is \(7, 31\), not \(7, 32\)",
    ),
    "a bias of another length": (
        lambda s: s | {"classifier.bias": torch.ones(5)},
        r"classifier\.bias is \(5,\), not \(7,\)",
    ),
    "a number": (
        lambda s: s | {"classifier.weight": torch.ones(())},
        r"classifier\.weight is \(\), not \(7, 32\)",
    ),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("write", [as_safetensors, as_bin], ids=lambda f: f.__name__)
def test_a_head_that_does_not_fit(
    head: str, write: Callable[[State, Path], Path], model: tuple[Path, State]
) -> None:
    folder, state = model
    change, message = HEADS[head]
    with pytest.raises(UsageError, match=message):
        read_checkpoint(classifying(write(change(state), folder)))


def test_a_head_without_the_norm_before_it(model: tuple[Path, State]) -> None:
    """A new one would make other labels of the same head."""
    folder, state = model
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("layernorm")}
    source = as_safetensors(rest, folder)
    with pytest.raises(UsageError, match=r"missing layernorm\.weight, layernorm\.bias"):
        read_checkpoint(classifying(source))


def test_adapters_beside_the_weights(model: tuple[Path, State]) -> None:
    folder, state = model
    name = "cvt.encoder.stages.0.layers.0.output.dense.lora_A.weight"
    source = as_safetensors(state | {name: torch.ones(4, 64)}, folder)
    with pytest.raises(UsageError, match=f"unexpected {name}. The file holds more than a CvT"):
        read_checkpoint(classifying(source))


def test_a_configuration_without_classes_has_none(model: tuple[Path, State]) -> None:
    folder, state = model
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {}}))
    with pytest.raises(UsageError, match="the checkpoint has no classifier"):
        read_checkpoint(classifying(as_safetensors(state, folder)))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"depth": 4}, "config.json: depth must be a list"),
        ("config.json", {"id2label": {"a": 0}}, "config.json: id2label must be a list of names"),
        ("config.json", {"num_channels": 4}, "num_channels is 4, and images have three"),
        ("preprocessor_config.json", {"size": 2}, "leaves nothing of images of 2 x 2"),
        ("preprocessor_config.json", {"size": 10**9}, "size must be a whole number"),
        ("preprocessor_config.json", {"image_std": None, "rescale_factor": "1"}, "rescale_factor"),
        ("preprocessor_config.json", {"do_resize": False}, "the preprocessing does not resize"),
    ],
)
def test_files_that_say_something_else(
    file: str, change: dict[str, Any], message: str, model: tuple[Path, State]
) -> None:
    folder, state = model
    if "num_channels" in change:
        name = "cvt.encoder.stages.0.embedding.convolution_embeddings.projection.weight"
        state[name] = torch.ones(16, 4, 7, 7)
    as_safetensors(state, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | change))
    with pytest.raises(UsageError) as caught:
        read_checkpoint(embedding(folder))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_overflow(model: tuple[Path, State]) -> None:
    """Each is finite; what the network makes of them is not."""
    folder, state = model
    state["classifier.weight"][:] = 3e38
    loaded = LoadedModel.load(classifying(as_safetensors(state, folder)), "float32")
    with pytest.raises(UsageError, match="gives NaN or infinity for ordinary images"):
        loaded.pack()


@pytest.mark.parametrize("job", ["classify", "embed"])
def test_the_commands_say_so(
    job: str, model: tuple[Path, State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, state = model
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    arguments = (tmp_path / "a.png", "--output", tmp_path / "out", "--model", folder, "--dry-run")
    as_safetensors(without_head(state), folder)
    assert call_main(job, *arguments) == (2 if job == "classify" else 0)
    state["classifier.bias"][3] = torch.nan
    as_safetensors(state, folder)
    capsys.readouterr()
    assert call_main(job, *arguments) == 2
    assert "classifier.bias holds NaN or infinity" in capsys.readouterr().err
    shutil.rmtree(folder)
    CvtImageProcessor().save_pretrained(folder)
    assert call_main(job, *arguments) == 2
    assert "holds no weights" in capsys.readouterr().err
