"""A second network in the actor: over the same pixels, and without a trace in the rows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.contract.schema import SHADOW
from pipeline.model.bundle import ShadowBundle
from pipeline.model.network import Outputs, Pixels
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings
from tests.support.models.checkpoints import write_checkpoint
from tests.support.models.inference import PIXELS, batch, prepare

IMAGES = [None, PIXELS[0], None, *PIXELS[1:4]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_checkpoint(tmp_path_factory.mktemp("m"), seed=seed) for seed in (0, 1)]


def actor(ours: Path, theirs: Path | None = None) -> Predictor:
    model = prepare(ours)
    settings = InferSettings.of(model, gpus=0, threads=1, batch_size=4)
    shadow = ShadowBundle(prepare(theirs).pack(), "softmax", "k") if theirs else None
    return Predictor(model.pack(), settings, shadow)


def test_it_says_what_it_would_say_alone(folders: list[Path]) -> None:
    ours, theirs = folders
    table = actor(ours, theirs)(batch(IMAGES))
    alone = actor(theirs)(batch(IMAGES))
    told = table[SHADOW.name].combine_chunks()
    keys, labels, scores = told.flatten()
    assert labels.to_pylist() == alone["label"].to_pylist()
    assert scores.to_pylist() == alone["score"].to_pylist()
    assert keys.to_pylist() == [None, "k", None, "k", "k", "k"]
    assert table.drop_columns(SHADOW.name).equals(actor(ours)(batch(IMAGES)))


def test_of_failed_images_it_says_nothing(folders: list[Path]) -> None:
    table = actor(*folders)(batch([None, None]))
    assert table[SHADOW.name].null_count == 2
    assert table.schema.field(SHADOW.name).type == SHADOW.type


def test_where_it_gives_no_number_the_rows_stand(folders: list[Path]) -> None:
    ours, theirs = folders
    found = actor(ours, theirs)
    assert found.shadow is not None
    intact = found.shadow.device.run

    def disturbing(pixels: Pixels) -> Outputs:
        out = intact(pixels)
        logits = out.logits.clone()
        logits[1, 3] = torch.nan
        return Outputs(logits, out.embedding)

    disturbed = SimpleNamespace(name="disturbed", run=disturbing)
    object.__setattr__(found.shadow, "device", disturbed)
    table = found(batch(list(PIXELS[:3])))
    assert table["status"].to_pylist() == ["ok"] * 3
    assert [told is None for told in table[SHADOW.name].to_pylist()] == [False, True, False]


def test_it_checks_itself_before_the_first_image(folders: list[Path]) -> None:
    ours, theirs = folders
    wrong = ShadowBundle(prepare(theirs).pack(), "softmax", "k")
    golden = wrong.bundle.golden
    object.__setattr__(golden, "logits", np.roll(golden.logits, 1, axis=1))
    settings = InferSettings.of(prepare(ours), gpus=0, threads=1, batch_size=4)
    with pytest.raises(RuntimeError, match="self-check failed"):
        Predictor(prepare(ours).pack(), settings, wrong)
