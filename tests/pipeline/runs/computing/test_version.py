"""What a run is told when its model is another one than before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Counts, Manifest
from pipeline.contract.provenance import Identity, Provenance
from pipeline.model.training.published import Training
from pipeline.output.ledger.history import CLOSED_ADVICE, History
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.runs.computing.version import closed_advice, model_before
from pipeline.storage.store import Store

OLD = Identity(
    weights_sha256="a" * 64, pooling="cls_norm", embedding="fixed_size_list<item: float>[96]"
)
NEW = replace(OLD, weights_sha256="b" * 64)


def history(store: Store, identity: Identity = OLD, name: str = "models/old") -> History:
    night = Manifest(
        run_id="1",
        counts=Counts(),
        files=(),
        identity=identity,
        spec={},
        model=Provenance(model=name),
    )
    return History(store, (night,))


def model(directory: Path, *same_backbone: str) -> str:
    """A model that was trained here, with these ancestors of the same backbone."""
    training = Training(same_backbone=same_backbone)
    Store(str(directory)).write_json("training.json", training.to_dict())
    return str(directory)


def test_the_same_model_needs_no_other_advice(local_store: Store) -> None:
    assert model_before(OLD, history(local_store)) is None
    assert closed_advice("m", OLD, history(local_store)) == CLOSED_ADVICE
    assert closed_advice("m", OLD, History(local_store, ())) == CLOSED_ADVICE


def test_a_model_of_the_same_backbone_can_relabel(local_store: Store, tmp_path: Path) -> None:
    new = model(tmp_path / "new", OLD.weights_sha256)
    advice = closed_advice(new, NEW, history(local_store))
    assert advice.startswith(f"the model was models/old and is now {new}: <policy.full> redoes")
    assert f"`cvt-relabel {local_store.uri} --output NEW_OUT --model {new}`" in advice


@pytest.mark.parametrize(
    "stored",
    [
        {"embedding": None},
        {"embedding": "fixed_size_list<item: halffloat>[96]"},
        {"normalize": True},
        {"pooling": "mean"},
        {"weights_sha256": "c" * 64},
    ],
)
def test_where_relabelling_would_be_refused_it_is_not_advised(
    stored: dict[str, Any], local_store: Store, tmp_path: Path
) -> None:
    new = model(tmp_path / "new", OLD.weights_sha256)
    advice = closed_advice(new, NEW, history(local_store, replace(OLD, **stored)))
    assert "is now" in advice
    assert CLOSED_ADVICE in advice
    assert "cvt-relabel" not in advice


def test_the_closed_runs_say_it(local_store: Store, tmp_path: Path) -> None:
    found = history(local_store, name="")
    with pytest.raises(UsageError, match=r"weights_sha256: a+ -> b+.*the model was weights aaaa"):
        found.check(NEW, closed_advice("elsewhere", NEW, found))


def test_an_unfinished_run_names_the_model_that_finishes_it(local_store: Store) -> None:
    record = OpenRecord(identity=OLD, model="models/old")
    with pytest.raises(UsageError, match=r"its model is model.source models/old: finish it with"):
        OpenRun(local_store, record=record).check(NEW, {})
    with pytest.raises(UsageError, match=r"; finish it with its own settings"):
        OpenRun(local_store, record=replace(record, model="")).check(NEW, {})
