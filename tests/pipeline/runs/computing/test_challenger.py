"""Which models can look at the same pixels as that of a run."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cvt import CvtImageProcessor
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.arithmetic import Arithmetic
from pipeline.model.loaded import LoadedModel, read_checkpoint
from pipeline.runs.computing.challenger import Challenge
from pipeline.storage.store import Store
from tests.support.models.checkpoints import write_checkpoint


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "theirs", seed=1)


def spec(ours: Path, theirs: object, **model: Any) -> RunSpec:
    return RunSpec(
        inputs=InputSpec(uris=("in",)),
        model=ModelSpec(source=str(ours), shadow=str(theirs), **model),
        output=OutputSpec(uri="out", top_k=5, thresholds={"class 1": 0.5}, embeddings=True),
    )


def read(run: RunSpec) -> Challenge | None:
    return Challenge.read(run, read_checkpoint(run))


def preprocess(directory: Path, **changes: Any) -> None:
    CvtImageProcessor(**{"size": 32, **changes}).save_pretrained(directory)


def test_it_computes_as_the_run_does(checkpoint: Path, theirs: Path) -> None:
    run = spec(checkpoint, theirs)
    challenge = read(run)
    assert challenge is not None
    ours = LoadedModel.of(read_checkpoint(run), run, Arithmetic("bfloat16"))
    found = challenge.beside(ours)
    assert found.loaded.dtype == "bfloat16"
    assert found.model.name == str(theirs)
    assert (found.model.only_it, found.model.not_it) == ((), ())
    assert (
        found.pack().key
        != challenge.beside(
            LoadedModel.of(read_checkpoint(run), run, Arithmetic("float32"))
        ).model.key
    )


def test_normalising_is_its_own_business(checkpoint: Path, theirs: Path) -> None:
    preprocess(theirs, image_mean=(0.1, 0.2, 0.3), image_std=(1.0, 1.0, 1.0))
    assert read(spec(checkpoint, theirs)) is not None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": 48}, "size.shortest_edge: 32 -> 48"),
        ({"crop_pct": 1.0}, "crop_pct: 0.875 -> 1.0"),
        ({"resample": 2}, "resample: 3 -> 2"),
    ],
)
def test_other_pixels_are_refused(
    changes: dict[str, Any], named: str, checkpoint: Path, theirs: Path
) -> None:
    preprocess(theirs, **changes)
    with pytest.raises(UsageError) as refused:
        read(spec(checkpoint, theirs))
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_size_for_both(checkpoint: Path, theirs: Path) -> None:
    preprocess(theirs, size=48)
    assert read(spec(checkpoint, theirs, image_size=32)) is not None


def test_classes_that_only_one_has(checkpoint: Path, theirs: Path) -> None:
    config = json.loads((theirs / "config.json").read_text())
    config["id2label"]["6"] = "class 9"
    config["label2id"] = {name: int(number) for number, name in config["id2label"].items()}
    (theirs / "config.json").write_text(json.dumps(config))
    run = spec(checkpoint, theirs)
    challenge = read(run)
    assert challenge is not None
    ours = LoadedModel.of(read_checkpoint(run), run, Arithmetic("float32"))
    model = challenge.beside(ours).model
    assert (model.only_it, model.not_it) == (("class 9",), ("class 6",))


def test_the_model_itself_needs_no_second_look(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the challenger of last night was published."""
    with caplog.at_level(logging.WARNING):
        assert read(spec(checkpoint, checkpoint)) is None
    assert "is the model of this run itself" in caplog.text


def test_a_directory_of_models_is_its_newest(checkpoint: Path, tmp_path: Path) -> None:
    models = Store(str(tmp_path / "models"))
    newest = write_checkpoint(tmp_path / "models/models/b", seed=2)
    models.write_json("latest.json", {"model": "models/b"})
    challenge = read(spec(checkpoint, models.uri))
    assert challenge is not None
    assert challenge.spec.model.source == str(newest)


def test_what_cannot_be_compared_is_wrong_usage(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.shadow .*nowhere: cannot load the model"):
        read(spec(checkpoint, tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"model\.shadow is empty"):
        ModelSpec(source="m", shadow="")
    with pytest.raises(UsageError, match=r"model\.shadow compares labels"):
        RunSpec(
            inputs=InputSpec(uris=("in",)),
            model=ModelSpec(source="m", shadow="n"),
            output=OutputSpec(uri="out", embeddings=True),
        )
