"""What a listing says of labelled images, before any of them is read."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import FinetuneSpec
from pipeline.runs.finetune.images.listed import Listed
from pipeline.runs.finetune.job import finetune, reads_images, survey
from pipeline.runs.finetune.labelled.labels import Labels
from pipeline.runs.finetune.result import ImageSurvey
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images, write_kinds
from tests.support.inputs.tars import tar_bytes
from tests.support.outputs.finetuning import close_labelled
from tests.support.outputs.open_runs import open_run


def spec_of(folder: Path, *inputs: str, **settings: Any) -> FinetuneSpec:
    given = {"label_from": "directory"} | settings
    if "labels" in given:
        del given["label_from"]
    uris = inputs or (str(folder / "in"),)
    return FinetuneSpec(outputs=uris, output=str(folder / "models"), model="no model", **given)


def listed(spec: FinetuneSpec) -> Listed:
    return Listed.of(spec, Labels.read(spec), spec.output)


def fingerprint(spec: FinetuneSpec) -> str:
    return listed(spec).fingerprint(Labels.read(spec))


def test_labels_by_directory(tmp_path: Path) -> None:
    write_kinds(tmp_path / "in", 3)
    found = listed(spec_of(tmp_path))
    assert sorted(found.labels) == ["ant"] * 3 + ["bee"] * 3 + ["cow"] * 3
    assert sum(table.num_rows for table in found.tables) == 9


def test_images_without_a_label_are_not_in_the_listing(tmp_path: Path) -> None:
    paths = write_kinds(tmp_path / "in", 3)
    labels = tmp_path / "labels.csv"
    rows = "".join(f"{path},{path.parent.name}\n" for path in paths[:8])
    labels.write_text(f"uri,label\n{rows}/elsewhere.jpg,ant\n")
    found = listed(spec_of(tmp_path, labels=(str(labels),)))
    assert (len(found.labels), found.unlabelled) == (8, 1)
    assert found.unmatched == ["/elsewhere.jpg"]
    named = [uri for table in found.tables for uri in table["uri"].to_pylist()]
    assert named == sorted(map(str, paths[:8]))


def test_labels_that_are_ignored_are_counted_and_not_read(tmp_path: Path) -> None:
    write_kinds(tmp_path / "in", 3)
    spec = spec_of(tmp_path, ignore=(" bee ", "bea"))
    found = listed(spec)
    assert sorted(found.labels) == ["ant"] * 3 + ["cow"] * 3
    assert sum(table.num_rows for table in found.tables) == 6
    assert (found.ignored, found.unlabelled) == ({"bee": 3, "bea": 0}, 0)
    survey = ImageSurvey(found)
    assert "ignored labels, and their images: bea (0), bee (3)" in survey.lines()
    assert survey.to_dict()["images"]["ignored"] == 3


def test_what_is_held_out_belongs_to_the_fingerprint(tmp_path: Path) -> None:
    paths = write_kinds(tmp_path / "in", 3)
    before = fingerprint(spec_of(tmp_path))
    held = tmp_path / "held.csv"
    spec = spec_of(tmp_path, val_labels=(str(held),))
    held.write_text(f"uri,label\n{paths[0]},ant\n")
    first = fingerprint(spec)
    assert first != before
    assert sum(listed(spec).given) == 1
    held.write_text(f"uri,label\n{paths[1]},ant\n")
    assert fingerprint(spec) not in (before, first)


def test_a_held_out_class_that_nothing_teaches_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    paths = write_kinds(tmp_path / "in", 4)
    held = tmp_path / "held.csv"
    held.write_text("uri,label\n" + "".join(f"{path},fly\n" for path in paths[:2]))
    with pytest.raises(UsageError, match="all images of 1 classes are held out, namely fly"):
        listed(spec_of(tmp_path, val_labels=(str(held),)))
    held.write_text(f"uri,label\n{paths[0]},ant\n/x.jpg,ant\n/y.jpg,ant\n")
    with pytest.raises(UsageError, match=r"2 of 3 images of finetune\.val_labels are not"):
        listed(spec_of(tmp_path, val_labels=(str(held),)))


def test_labels_by_a_column_of_a_list(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "pictures", 6)
    table = tmp_path / "list.csv"
    kinds = ["ant", "bee", "", "ant", "bee", "ant"]
    rows = "".join(f"{path},{kind}\n" for path, kind in zip(paths, kinds, strict=True))
    table.write_text(f"uri,kind\n{rows}")
    spec = spec_of(tmp_path, str(table), label_from=None, label_column="kind")
    found = listed(spec)
    assert sorted(found.labels) == ["ant", "ant", "ant", "bee", "bee"]
    assert found.unlabelled == 1


def test_members_of_a_shard_are_not_known_yet(tmp_path: Path) -> None:
    (tmp_path / "all.tar").write_bytes(tar_bytes())
    found = listed(spec_of(tmp_path, str(tmp_path / "all.tar")))
    assert (found.shards, found.labels) == (1, [])
    assert len(found.tables[0]) == 1


def test_what_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    paths = write_kinds(tmp_path / "in", 3)
    with pytest.raises(UsageError, match="no image of the INPUT has a label"):
        listed(spec_of(tmp_path, label_from=None, labels=(empty(tmp_path),)))
    with pytest.raises(UsageError, match="it takes two to tell"):
        listed(spec_of(tmp_path, str(tmp_path / "in" / "ant")))
    labels = tmp_path / "labels.csv"
    labels.write_text(f"uri,label\n/a.jpg,x\n/b.jpg,x\n{paths[0]},y\n")
    with pytest.raises(UsageError, match=r"2 of 3 labels in .* have no image in the INPUT"):
        listed(spec_of(tmp_path, labels=(str(labels),)))
    with pytest.raises(UsageError, match="does not have: kind; it has: none; "):
        listed(spec_of(tmp_path, label_from=None, label_column="kind"))


def empty(folder: Path) -> str:
    path = folder / "empty.csv"
    path.write_text("uri,label\n")
    return str(path)


def test_the_fingerprint_is_that_of_names_versions_and_labels(tmp_path: Path) -> None:
    paths = write_kinds(tmp_path / "in", 3)
    before = fingerprint(spec_of(tmp_path))
    assert fingerprint(spec_of(tmp_path)) == before
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert fingerprint(spec_of(tmp_path)) == before
    paths[0].write_bytes(paths[1].read_bytes())
    changed = fingerprint(spec_of(tmp_path))
    assert changed != before
    paths[0].rename(paths[3].with_name("moved.jpg"))
    assert fingerprint(spec_of(tmp_path)) not in (before, changed)


def test_the_models_are_no_images_to_learn_from(tmp_path: Path) -> None:
    write_kinds(tmp_path / "in", 2)
    write_kinds(tmp_path / "in" / "models", 2)
    spec = FinetuneSpec(
        outputs=(str(tmp_path / "in"),),
        output=str(tmp_path / "in" / "models"),
        model="m",
        label_from="directory",
    )
    assert len(listed(spec).labels) == 6


def test_what_is_an_output_and_what_are_images(tmp_path: Path, checkpoint: Path) -> None:
    write_kinds(tmp_path / "in", 2)
    out = Store(str(tmp_path / "out"))
    close_labelled(out, checkpoint)
    assert reads_images(spec_of(tmp_path))
    assert not reads_images(spec_of(tmp_path, out.uri))
    assert not reads_images(spec_of(tmp_path, str(tmp_path / "nowhere")))
    unfinished = Store(str(tmp_path / "unfinished"))
    open_run(unfinished)
    assert not reads_images(spec_of(tmp_path, unfinished.uri))
    with pytest.raises(UsageError, match="is an output, and other INPUTs are not"):
        reads_images(spec_of(tmp_path, out.uri, str(tmp_path / "in")))


def test_a_survey_reads_no_image(tmp_path: Path, checkpoint: Path) -> None:
    for path in write_kinds(tmp_path / "in", 3):
        path.write_bytes(b"no image at all")
    spec = FinetuneSpec(
        outputs=(str(tmp_path / "in"),),
        output=str(tmp_path / "models"),
        model=str(checkpoint),
        label_from="directory",
    )
    found = survey(spec)
    assert found.to_dict()["classes"] == {"ant": 3, "bee": 3, "cow": 3}
    assert found.lines()[0] == "9 images of 3 classes would be read"
    assert not (tmp_path / "models").exists()


def test_another_unfinished_fine_tuning_is_named(tmp_path: Path, checkpoint: Path) -> None:
    write_kinds(tmp_path / "in", 2)
    models = Store(str(tmp_path / "models"))
    record = {"data": "other", "spec": {"train": "head", "penalty": 3.0}}
    models.write_json("_open/abc/training.json", record)
    spec = FinetuneSpec(
        outputs=(str(tmp_path / "in"),),
        output=models.uri,
        model=str(checkpoint),
        label_from="directory",
    )
    with pytest.raises(UsageError) as refused:
        finetune(spec)
    told = str(refused.value)
    assert "the fine-tuning abc in " in told
    assert "penalty 3.0 instead of 1.0 and " in told
    assert "other images or labels; start that command again to continue it, or give " in told
    assert models.list("_open")
