"""What ends with exit code 2, before anything is written."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import FinetuneSpec
from pipeline.runs.finetune.job import finetune, survey
from pipeline.storage.store import Store
from tests.support.models.checkpoints import write_checkpoint
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.finetuning import close_labelled
from tests.support.outputs.relabelling import CLASSES, softmax


def refusal(source: Store, models: Store, model: Path, **settings: Any) -> str:
    """The message, of a fine-tuning and of its survey."""
    given = {"label_from": "directory"} | settings
    spec = FinetuneSpec(outputs=(source.uri,), output=models.uri, model=str(model), **given)
    with pytest.raises(UsageError) as refused:
        finetune(spec)
    with pytest.raises(UsageError) as surveyed:
        survey(spec)
    assert str(surveyed.value) == str(refused.value)
    assert not Path(models.uri).exists()
    return str(refused.value)


def test_what_is_no_output_with_embeddings(
    source: Store, models: Store, checkpoint: Path, tmp_path: Path
) -> None:
    told = refusal(source, models, checkpoint)
    assert "holds no closed run" in told
    assert "starts from the embeddings that cvt-classify or cvt-embed has stored" in told
    close_run(source, rows_of(softmax(0, 9), CLASSES), CLASSES)
    assert "stores no embeddings, which fine-tuning needs" in refusal(source, models, checkpoint)
    other = Store(str(tmp_path / "normalized"))
    close_labelled(other, checkpoint, normalize=True)
    told = refusal(other, models, checkpoint)
    assert "output.pooling cls_norm, not normalized; these have cls_norm, normalize True" in told


def test_a_model_that_has_not_computed_the_embeddings(
    source: Store, models: Store, checkpoint: Path, tmp_path: Path
) -> None:
    close_labelled(source, checkpoint)
    other = write_checkpoint(tmp_path / "other", seed=1)
    told = refusal(source, models, other)
    assert "are those of a model (weights " in told
    assert f"not of model.source {other} (weights" in told
    told = refusal(source, models, checkpoint, image_size=48)
    assert "give the same model.activation and model.image_size" in told
    told = refusal(source, models, checkpoint, champion=str(other))
    assert "has another backbone or preprocessing than model.source" in told
    assert told.endswith("name the images instead of outputs")


def test_columns_that_are_not_the_inputs(source: Store, models: Store, checkpoint: Path) -> None:
    """Not the model's own ``label``, above all."""
    close_labelled(source, checkpoint, kept={"kind": ["x", "y", "z"] * 30, "site": [1, 2] * 45})
    asked: dict[str, Any] = {"label_from": None, "label_column": "label"}
    told = refusal(source, models, checkpoint, **asked)
    assert "finetune.label_column is 'label', which is no column that" in told
    assert "it has kind, site (inputs.keep)" in told
    told = refusal(source, models, checkpoint, split_by="sites")
    assert "finetune.split_by is 'sites'" in told


def test_labels_of_other_images(
    source: Store, models: Store, checkpoint: Path, tmp_path: Path
) -> None:
    written = close_labelled(source, checkpoint)
    labels = tmp_path / "labels.csv"
    rows = "".join(f"/elsewhere/{number}.jpg,ant\n" for number in range(4))
    some = "".join(f"{uri},bee\n" for uri in written.uris[:3])
    labels.write_text(f"uri,label\n{rows}{some}")
    told = refusal(source, models, checkpoint, label_from=None, labels=(str(labels),))
    assert told.startswith(f"4 of 7 labels in {labels} have no image in the output, such as ")
    assert "/elsewhere/0.jpg, /elsewhere/1.jpg, /elsewhere/2.jpg; a uri must" in told
    labels.write_text("uri,label\n")
    told = refusal(source, models, checkpoint, label_from=None, labels=(str(labels),))
    assert "has both a label and an embedding (90 without a label, 0 failed)" in told


def test_a_held_out_set_of_other_images_or_of_classes_that_nothing_teaches(
    source: Store, models: Store, checkpoint: Path, tmp_path: Path
) -> None:
    written = close_labelled(source, checkpoint)
    held = tmp_path / "held.csv"
    asked: dict[str, Any] = {"val_labels": (str(held),)}
    some = "".join(f"{uri},bee\n" for uri in written.uris[:2])
    held.write_text(f"uri,label\n{some}/x.jpg,ant\n/y.jpg,ant\n/z.jpg,ant\n")
    labels = str(written.label_file(tmp_path / "labels.csv"))
    told = refusal(source, models, checkpoint, label_from=None, labels=(labels,), **asked)
    assert told.startswith("3 of 5 images of finetune.val_labels are not in the output, namely ")
    held.write_text("uri,label\n" + "".join(f"{uri},fly\n" for uri in written.uris[:2]))
    told = refusal(source, models, checkpoint, **asked)
    assert told.startswith("all images of 1 classes are held out, namely fly; label more images of")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"corrections": False},
            "no labels: give finetune.labels, finetune.label_from dir",
        ),
        (
            {"label_from": "directory", "label_column": "kind"},
            "finetune.label_from excludes finetune.label_column",
        ),
        ({"label_from": "folder"}, "finetune.label_from is 'folder'; accepted: directory"),
        (
            {"label_from": "directory", "train": "both"},
            "finetune.train is 'both'; accepted: head, last, all",
        ),
        ({"labels": ("a", "")}, "one finetune.labels is empty"),
        ({"labels": ("a",), "val_labels": ("",)}, "one finetune.val_labels is empty"),
        ({"labels": ("a",), "ignore": ("b", " ")}, "one finetune.ignore is empty"),
        ({"labels": ("a",), "class_weights": "x"}, "is 'x'; accepted: none, auto"),
        (
            {"labels": ("a",), "val_labels": ("b",), "val_share": 0.3},
            "finetune.val_labels excludes finetune.val_share",
        ),
        ({"labels": ("a",), "val_share": 1.0}, "finetune.val_share is 1.0; it must be above 0"),
        (
            {"labels": ("a",), "penalty": 0.0},
            "finetune.penalty is 0.0; it must be a number",
        ),
        ({"labels": ("a",), "penalty": float("nan")}, "finetune.penalty is nan"),
        ({"labels": ("a",), "min_accuracy": 90.0}, "finetune.min_accuracy is 90.0; it must be"),
        ({"labels": ("a",), "fail_if_worse": True}, "needs finetune.champion to compare with"),
        ({"labels": ("a",), "output": ""}, "output.uri is empty"),
        ({"labels": ("a",), "outputs": ("",)}, "finetune.outputs is empty"),
        ({"labels": ("a",), "output": "s3://a:b@c/d"}, "output.uri has a password in it"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        FinetuneSpec(**{"outputs": ("o",), "output": "m", "model": "s"} | settings)
    assert complaint in str(refused.value)
