"""Rows as a run with a fine-tuned model would have written them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvt import CvtForImageClassification
from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import FinetuneSpec, RelabelSpec
from pipeline.output.ledger.history import History
from pipeline.runs.finetune.job import finetune
from pipeline.runs.relabel.job import relabel
from pipeline.storage.store import Store
from tests.support.outputs.finetuning import KINDS, Labelled, close_labelled, run_identity
from tests.support.outputs.relabelling import rows, spec


def train(source: Store, models: Path, model: Path | str, **settings: Any) -> str:
    """The directory of a new model."""
    given = {"label_from": "directory"} | settings
    learn = FinetuneSpec(outputs=(source.uri,), output=str(models), model=str(model), **given)
    return finetune(learn).model_uri


@pytest.fixture
def written(source: Store, checkpoint: Path) -> Labelled:
    kept = {"site": ["x", "y", "z"] * 30}
    return close_labelled(source, checkpoint, kept=kept, failures=["corrupt"])


@pytest.fixture
def model(source: Store, checkpoint: Path, tmp_path: Path, written: Labelled) -> str:
    return train(source, tmp_path / "models", checkpoint)


def test_identity_and_rows_are_those_of_a_run(
    source: Store, output: Store, model: str, written: Labelled, tmp_path: Path
) -> None:
    result = relabel(spec(source, output, model=str(tmp_path / "models")))
    assert result.counts == Counts(listed=91, ok=90, failed=1, skipped=0)
    expected = run_identity(Path(model))
    assert History.load(output).runs[0].identity == replace(expected, kept={"site": "string"})
    assert result.manifest.model.model == model
    assert result.manifest.model.weights_sha256 == expected.weights_sha256
    network = CvtForImageClassification.from_pretrained(model)
    head = network.head.state_dict()
    logits = written.vectors @ head["weight"].numpy().T + head["bias"].numpy()
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    found = rows(output)
    for uri, row_shares in zip(written.uris, shares, strict=True):
        row = found[uri]
        assert row["label"] == KINDS[int(row_shares.argmax())]
        assert np.allclose(row["topk_scores"], np.sort(row_shares)[::-1], atol=1e-6)
        assert row["topk_labels"] == [KINDS[n] for n in row["topk_ids"]]
        assert row["site"] in "xyz"


def test_other_settings_of_the_run(source: Store, output: Store, model: str) -> None:
    relabel(spec(source, output, model=model, top_k=2, thresholds=0.25, scores="sigmoid"))
    asked = run_identity(Path(model), top_k=2, thresholds=0.25, scores="sigmoid")
    assert History.load(output).runs[0].identity == replace(asked, kept={"site": "string"})


def test_generations_of_one_backbone(
    source: Store, output: Store, model: str, tmp_path: Path
) -> None:
    """What the second model learned in the first one's output, it says of the first output."""
    relabel(spec(source, output, model=model))
    second = train(output, tmp_path / "models", model, penalty=3.0)
    assert second != model
    third = Store(str(tmp_path / "third"))
    relabel(spec(source, third, model=second))
    told = History.load(third).runs[0].identity
    assert told.weights_sha256 == run_identity(Path(second)).weights_sha256
    assert relabel(spec(source, third, model=second)).counts.ok == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights_sha256": "0" * 64}, "was not trained on the backbone of"),
        ({"activation": "quick_gelu"}, "has another preprocessing or activation"),
        ({"normalize": True}, "not normalized; these have cls_norm, normalize True"),
        ({"embedding": "fixed_size_list<element: halffloat>[32]"}, "are stored as float16"),
    ],
)
def test_rows_that_the_model_would_not_have(
    changes: dict[str, Any], complaint: str, checkpoint: Path, model: str, output: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    other = Store(str(tmp_path / "other"))
    close_labelled(other, checkpoint, **changes)
    with pytest.raises(UsageError, match=complaint):
        relabel(spec(other, output, model=model))
    assert not output.list("")


def test_a_model_that_nobody_fine_tuned_or_that_was_changed_since(
    source: Store, output: Store, model: str, checkpoint: Path
) -> None:
    with pytest.raises(UsageError, match="is not as fine-tuning has published it"):
        relabel(spec(source, output, model=str(checkpoint)))
    network = CvtForImageClassification.from_pretrained(model)
    network.load_state_dict(network.state_dict() | {"head.bias": torch.ones(3)})
    network.save_pretrained(model)
    with pytest.raises(UsageError, match="is not as fine-tuning has published it"):
        relabel(spec(source, output, model=model))


def test_what_excludes_a_model() -> None:
    with pytest.raises(UsageError, match=r"relabel\.model excludes relabel\.head") as refused:
        RelabelSpec(source="a", output="b", model="m", head="h.npz")
    assert "no run would write such rows" in str(refused.value)
