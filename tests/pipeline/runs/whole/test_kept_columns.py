"""Kept columns through whole runs: they follow the input, whatever happens to the numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Counts, DeferredCounts
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, PolicySpec, RunSpec
from pipeline.model.loaded import LoadedModel
from pipeline.runs.run import forecast, run
from tests.support.inputs.images import write_images
from tests.support.models.checkpoints import write_checkpoint
from tests.support.outputs.found import published_rows

Night = Callable[..., RunSpec]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """The spec of a run over a list with a column of notes."""
    checkpoint = write_checkpoint(tmp_path / "model")
    write_images(tmp_path / "in", 6)

    def spec(notes: list[str], *keep: str, **policy: Any) -> RunSpec:
        rows = [f"in/{number:04d}.jpg,{note}" for number, note in enumerate(notes)]
        (tmp_path / "list.csv").write_text("\n".join(["path,note", *rows]))
        return RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "list.csv"),), keep=keep),
            model=ModelSpec(source=str(checkpoint)),
            output=OutputSpec(uri=str(tmp_path / "out"), top_k=2, embeddings=True),
            policy=PolicySpec(**policy),
        )

    return spec


def test_the_model_is_loaded_without_a_look_at_the_input(tmp_path: Path, night: Night) -> None:
    spec = night(list("abcdef"), "note")
    (tmp_path / "list.csv").unlink()
    model = LoadedModel.load(spec, "float32")
    assert model.identity.kept is None
    with pytest.raises(UsageError, match=r"list\.csv does not exist"):
        forecast(spec)


def test_what_is_wrong_with_the_model_is_said_first(tmp_path: Path, night: Night) -> None:
    spec = night(list("abcdef"), "nothing")
    for begin in (forecast, run):
        with pytest.raises(UsageError, match="columns that the INPUT does not have: nothing"):
            begin(spec)
    shutil.rmtree(tmp_path / "model")
    for begin in (forecast, run):
        with pytest.raises(UsageError, match="cannot load the model"):
            begin(spec)


@pytest.mark.usefixtures("ray_local")
def test_a_new_note_is_a_new_row_whose_numbers_can_be_copied(tmp_path: Path, night: Night) -> None:
    first = run(night(list("abcdef"), "note"))
    assert first.counts == Counts(listed=6, ok=6, failed=0, skipped=0)
    before = {row["uri"]: row for row in published_rows(tmp_path / "out")}
    assert [row["note"] for row in before.values()] == list("abcdef")

    second = run(night(list("abXdef"), "note", reuse_content=True))
    assert second.counts == Counts(listed=6, ok=1, failed=0, skipped=5)
    after = [row for row in published_rows(tmp_path / "out") if row["note"] == "X"]
    (copy,) = after
    source = before[copy["uri"]]
    changed = {name for name in copy if copy[name] != source[name]}
    assert changed == {"note", "source_version"}

    assert forecast(night(list("abXdef"), "*")).plan.is_empty, "all columns are this one"
    with pytest.raises(UsageError, match=r"kept: .*note.* -> None.*policy\.full"):
        run(night(list("abXdef")))
    late = run(night(list("abXdeY"), "note", max_seconds=0))
    assert late.manifest.deferred == DeferredCounts(images=1, shards=0)
