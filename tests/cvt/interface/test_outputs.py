"""Outputs as attributes, mapping and tuple, and in the hands of PyTorch's own tools."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch.nn.parallel import scatter_gather
from torch.utils import _pytree as pytree

from cvt import CvtConfig, CvtForImageClassification, CvtModel, CvtModelOutput, CvtOutput
from tests.support.models.oracle import SMALL, images, oracle

X, LABELS = images(2, 32, 32), torch.tensor([0, 3])


@pytest.fixture(scope="module")
def model() -> CvtForImageClassification:
    return CvtForImageClassification(CvtConfig.from_dict(SMALL)).eval()


def test_names_keys_and_positions_are_those_of_transformers(
    model: CvtForImageClassification,
) -> None:
    asked: dict[str, Any] = {"pixel_values": X, "labels": LABELS, "output_hidden_states": True}
    out, theirs = model(**asked), oracle(**SMALL)(**asked)
    assert [*theirs] == [name for name in out if name != "embedding"]
    assert out.to_tuple() == (out.loss, out.logits, out.hidden_states)
    assert len(out.to_tuple()) == len(theirs.to_tuple())
    assert out[0] is out["loss"] is out.loss
    assert out[:2] == (out.loss, out.logits)
    assert out[-1] is out.hidden_states
    assert dict(**out)["embedding"] is out.embedding


def test_what_was_not_asked_for_is_none_and_no_key(model: CvtForImageClassification) -> None:
    out = model(X)
    assert (out.loss, out.hidden_states, out.attentions) == (None, None, None)
    assert [*out] == ["logits", "embedding"]
    assert out[0] is out.logits
    assert out.get("loss") is None
    assert "loss" not in out
    with pytest.raises(KeyError):
        out["loss"]
    with pytest.raises(AttributeError, match="CvtOutput has no 'logit', but logits, embedding"):
        out.logit  # noqa: B018


def test_the_backbone_answers_alike() -> None:
    out = CvtModel(CvtConfig.from_dict(SMALL)).eval()(X, output_attentions=True)
    assert isinstance(out, CvtModelOutput)
    assert [*out] == ["last_hidden_state", "cls_token_value", "attentions"]
    assert out[1] is out.cls_token_value
    assert out[2] == out.attentions


def test_attributes_can_be_set_and_appear_as_items() -> None:
    out = CvtOutput(logits=X)
    out.embedding = LABELS
    assert out["embedding"] is LABELS
    assert "embedding" not in vars(out)


def test_copies_and_pickles_keep_kind_and_values() -> None:
    out = CvtOutput(logits=X, embedding=X + 1, hidden_states=(X,))
    for other in (copy.copy(out), copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert type(other) is CvtOutput
        assert [*other] == [*out]
        assert torch.equal(other.embedding, out.embedding)


def test_pytrees_take_it_apart_and_together(model: CvtForImageClassification) -> None:
    out = model(X, output_hidden_states=True, output_attentions=True)
    doubled: Any = pytree.tree_map(lambda tensor: 2 * tensor, out)
    name = "stages.2.blocks.0"
    assert torch.equal(doubled.attentions[name], 2 * out.attentions[name])
    assert torch.equal(doubled.hidden_states[1], 2 * out.hidden_states[1])
    assert type(doubled) is CvtOutput


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_takes_the_model_as_it_is(
    model: CvtForImageClassification, strict: bool
) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (X,), dynamic_shapes=({0: batch},), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    out = torch.export.load(file).module()(images(5, 32, 32))
    assert type(out) is CvtOutput
    assert torch.allclose(out.logits, model(images(5, 32, 32)).logits, atol=1e-5)


def test_torch_compile_returns_it_in_one_graph(model: CvtForImageClassification) -> None:
    out: Any = torch.compile(model, backend="eager", fullgraph=True)(X, labels=LABELS)
    assert torch.allclose(out.loss, model(X, labels=LABELS).loss)
    assert type(out) is CvtOutput


def test_data_parallel_gathers_it(
    model: CvtForImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own walk over the replicas' outputs; only its copy to a GPU is replaced."""
    gather: Any = type("Gather", (), {"apply": lambda _device, dim, *parts: torch.cat(parts, dim)})
    monkeypatch.setattr(scatter_gather, "Gather", gather)
    out = scatter_gather.gather([model(X), model(X[:1])], torch.device("cpu"))
    assert type(out) is CvtOutput
    assert out.logits.shape == (3, 7)
