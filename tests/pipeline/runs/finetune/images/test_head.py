"""A classifier from images that nobody has embedded yet."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import (
    ComputeSpec,
    FinetuneSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    RunSpec,
)
from pipeline.runs.finetune.job import finetune
from pipeline.runs.run import run
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images, write_kinds


@pytest.mark.usefixtures("ray_local")
def test_a_champion_with_other_preprocessing_looks_at_the_images_itself(
    tmp_path: Path, checkpoint: Path
) -> None:
    """And says what it said when it was held against them."""
    write_kinds(tmp_path / "in", 8)
    spec = FinetuneSpec(
        outputs=(str(tmp_path / "in"),),
        output=str(tmp_path / "models"),
        model=str(checkpoint),
        label_from="directory",
        pictures=0,
    )
    first = finetune(spec)
    second = finetune(replace(spec, image_size=48, champion=first.model_uri))
    before, now = (
        {
            row["uri"]: row
            for row in read_table(Store(one.model_uri), "predictions.parquet").to_pylist()
        }
        for one in (first, second)
    )
    held = [uri for uri, row in now.items() if row["split"] == "validation"]
    assert len(held) > 2
    assert {uri: now[uri]["champion"] for uri in held} == {u: before[u]["predicted"] for u in held}
    assert all(row["champion"] is None for uri, row in now.items() if uri not in held)
    told = second.metrics["champion"]
    assert (told["images"], told["accuracy"]) == (len(held), first.metrics["accuracy"])
    assert not second.store.list("_open")


@pytest.mark.usefixtures("ray_local")
def test_it_is_the_one_that_an_output_of_these_images_gives(
    tmp_path: Path, checkpoint: Path
) -> None:
    """A labelled image that is broken fails, and one without a label is not read; nor is one whose
    label is ignored, though most are."""
    paths = write_kinds(tmp_path / "in", 8)
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    write_images(tmp_path / "in" / "unsorted", 2)
    unsure = write_images(tmp_path / "in" / "unsure", 30)
    labels = tmp_path / "labels.csv"
    labels.write_text("uri,label\n" + "".join(f"{p},{p.parent.name}\n" for p in (*paths, *unsure)))
    held = tmp_path / "held.csv"
    held.write_text("uri,label\n" + "".join(f"{p},{p.parent.name}\n" for p in paths[::5]))
    run(
        RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "in"),)),
            model=ModelSpec(source=str(checkpoint), dtype="float32"),
            output=OutputSpec(uri=str(tmp_path / "out"), embeddings=True),
            compute=ComputeSpec(num_actors=1),
        )
    )
    of_output = FinetuneSpec(
        outputs=(str(tmp_path / "out"),),
        output=str(tmp_path / "from output"),
        model=str(checkpoint),
        labels=(str(labels),),
        val_labels=(str(held),),
        ignore=("unsure",),
        class_weights="auto",
    )
    expected = finetune(of_output)
    of_images = replace(
        of_output, outputs=(str(tmp_path / "in"),), output=str(tmp_path / "from images")
    )
    found = finetune(of_images)
    assert found.exit_code == ExitCode.OK
    images = found.metrics["images"]
    assert images == expected.metrics["images"]
    assert [images[name] for name in ("failed", "unlabelled", "ignored")] == [1, 2, 30]
    assert images["validation"] == 5
    models, others = (
        Store(f"{result.store.uri}/models/{result.run_id}") for result in (found, expected)
    )
    for name in ("model.safetensors", "head.npz"):
        assert models.read_bytes(name) == others.read_bytes(name)
    told, before = (read_table(store, "predictions.parquet") for store in (models, others))
    assert told.drop_columns("score").equals(before.drop_columns("score"))
    assert not found.store.list("_open")
    again = finetune(of_images)
    assert (again.run_id, again.is_new) == (found.run_id, False)
