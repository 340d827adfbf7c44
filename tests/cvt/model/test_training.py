"""Training mode: gradients and statistics as the reference, drop path, checkpointing, freezing."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from cvt import CvtConfig, CvtForImageClassification
from cvt.checkpoints.layouts import translate
from cvt.layers.blocks import Block
from cvt.layers.drop_path import DropPath
from tests.support.models.oracle import SMALL, difference, images, oracle

X = images(6, 48, 40)
LABELS = torch.arange(6)


def small_model(**fields: Any) -> CvtForImageClassification:
    return CvtForImageClassification(CvtConfig.from_dict(SMALL | fields))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.train()
    model(X, labels=LABELS).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_step_equals_transformers(tmp_path: Path) -> None:
    """Without drop path, whose second use transformers misplaces."""
    reference = oracle(**SMALL, drop_path_rate=[0.0] * 3)
    reference.save_pretrained(tmp_path)
    model = CvtForImageClassification.from_pretrained(tmp_path)
    expected = translate(gradients(reference), "hugging_face", "ours")
    found = gradients(model)
    assert found.keys() == expected.keys()
    assert max(difference(found[name], expected[name]) for name in expected) < 1e-4
    statistics = translate(reference.state_dict(), "hugging_face", "ours")
    for name, buffer in model.named_buffers():
        assert difference(buffer, statistics[name]) < 1e-4


def test_drop_path_ramps_up_within_each_stage() -> None:
    model = small_model(depth=[1, 2, 5], drop_path_rate=[0.2, 0.2, 0.4])
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.0, 0.0, 0.2, 0.0, 0.1, 0.2, 0.3, 0.4])


def test_each_branch_is_dropped_on_its_own() -> None:
    """At rate 0.5 a sample keeps both, either or none of the two, and the residual always."""
    torch.manual_seed(0)
    block = Block(CvtConfig.from_dict(SMALL), 0, 0.5).eval()
    x = torch.randn(1, 16, 16).expand(400, -1, -1)
    attention = 2 * block.attn(block.norm1(x[:1]), (4, 4))[0]
    kinds = [x[0] + mask * attention[0] for mask in (0, 1)]
    kinds += [kind + 2 * block.mlp(block.norm2(kind)) for kind in kinds]
    block.drop_path.train()
    y, _ = block(x, (4, 4))
    counts = [int((y - kind).abs().amax(dim=(1, 2)).lt(1e-4).sum()) for kind in kinds]
    assert sum(counts) == 400
    assert min(counts) > 60


def test_dropout_acts_in_training_only() -> None:
    model = small_model(drop_rate=[0.3] * 3, attention_drop_rate=[0.3] * 3)
    with torch.no_grad():
        assert not torch.equal(model.train()(X).logits, model(X).logits)
        assert torch.equal(model.eval()(X).logits, model(X).logits)


def test_checkpointing_changes_neither_gradients_nor_statistics() -> None:
    """Recomputing must draw the same drops and must not count a batch twice."""
    torch.manual_seed(0)
    fields = {"drop_path_rate": [0.1, 0.3, 0.3], "drop_rate": [0.1] * 3}
    plain, saving = small_model(**fields), small_model(**fields)
    saving.load_state_dict(plain.state_dict())
    saving.backbone.gradient_checkpointing_enable()
    torch.manual_seed(1)
    expected = gradients(plain)
    torch.manual_seed(1)
    found = gradients(saving)
    assert max(difference(found[name], expected[name]) for name in expected) < 1e-6
    for (name, a), (_, b) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert torch.equal(a, b), name


class OtherBatchNorm(_BatchNorm):
    """Stands for SyncBatchNorm, which trains on GPUs only: it is no BatchNorm2d either."""

    def _check_input_dim(self, x: torch.Tensor) -> None:
        assert x.ndim == 4


def with_other_norms(module: Any) -> Any:
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, name, OtherBatchNorm(child.num_features))
        else:
            with_other_norms(child)
    return module


def test_checkpointing_counts_a_batch_once_in_any_batch_norm() -> None:
    assert not issubclass(torch.nn.SyncBatchNorm, torch.nn.BatchNorm2d)
    assert issubclass(torch.nn.SyncBatchNorm, _BatchNorm)
    plain, saving = (with_other_norms(small_model(drop_path_rate=[0.0] * 3)) for _ in range(2))
    saving.load_state_dict(plain.state_dict())
    saving.backbone.gradient_checkpointing_enable()
    gradients(plain)
    gradients(saving)
    for (name, a), (_, b) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert torch.equal(a, b), name


def test_checkpointing_under_torch_compile() -> None:
    """The same gradients and statistics, in one graph."""
    torch.manual_seed(0)
    plain = small_model(depth=[1, 1, 1], drop_path_rate=[0.0] * 3)
    saving = copy.deepcopy(plain)
    saving.backbone.gradient_checkpointing_enable()
    expected = gradients(plain)
    compiled = torch.compile(saving, backend="aot_eager", fullgraph=True)
    gradients(compiled)
    found: Any = {name: p.grad for name, p in saving.named_parameters()}
    assert max(difference(found[name], expected[name]) for name in expected) < 1e-5
    for (name, a), (_, b) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert difference(a, b) < 1e-5, name


def test_gradients_in_float64_are_those_of_float64() -> None:
    """Nothing on the way narrows to float32: the derivative agrees with finite differences."""
    model = small_model(depth=[1, 1, 1]).double().eval()
    x = images(1, 16, 16).double().requires_grad_()
    assert model(x).logits.dtype == model(x).embedding.dtype == torch.float64
    assert model.embed(x).dtype == torch.float64
    direction = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(model(x).logits.sum(), x)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (model(x + sign * step * direction).logits.sum() for sign in (1, -1))
    assert difference((gradient * direction).sum(), (ahead - behind) / (2 * step)) < 1e-8


def test_checkpointing_saves_memory() -> None:
    def saved_bytes(model: CvtForImageClassification) -> int:
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(X, labels=LABELS)
        return total

    model = small_model().train()
    plain = saved_bytes(model)
    model.backbone.gradient_checkpointing_enable()
    assert saved_bytes(model) < plain / 3


def test_frozen_stages_neither_learn_nor_count() -> None:
    model = small_model()
    model.backbone.freeze(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = gradients(model)
    assert {name.split(".")[2] for name in found if name.startswith("backbone")} == {"2"}
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed
    assert all(name.startswith("backbone.stages.2.") for name in changed)


def test_initial_weights_are_as_published() -> None:
    torch.manual_seed(0)
    model = CvtForImageClassification(CvtConfig())
    linear = model.get_parameter("backbone.stages.2.blocks.3.mlp.fc1.weight")
    assert linear.std().item() == pytest.approx(0.02, rel=0.01)
    assert model.get_parameter("backbone.stages.2.blocks.3.mlp.fc1.bias").abs().max() == 0
    assert model.get_parameter("head.weight").std().item() == pytest.approx(0.02, rel=0.01)
    cls_token = model.get_parameter("backbone.stages.2.cls_token")
    assert cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    # PyTorch's default for a convolution: uniform within 1 / sqrt(fan in).
    conv = model.get_parameter("backbone.stages.0.embed.conv.weight")
    assert conv.abs().max().item() == pytest.approx((3 * 7 * 7) ** -0.5, rel=0.01)


@pytest.mark.parametrize("has_cls", [True, False])
def test_batch_norms_get_gradients_without_gaps(has_cls: bool) -> None:
    """On CPUs, they take several times as long over others."""
    model = small_model(cls_token=[False, False, has_cls]).train()
    strides = list[tuple[int, ...]]()

    def note(norm: torch.nn.Module, found: object, gradients: Any) -> None:
        (gradient,) = gradients
        assert gradient.is_contiguous(memory_format=torch.channels_last)
        strides.append(gradient.stride())

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.register_full_backward_hook(note)
    model(X, labels=LABELS).loss.backward()
    assert len(strides) == len(norms) == 3 * (1 + 2 + 3)
