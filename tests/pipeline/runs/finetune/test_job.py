"""Fine-tunings whole, on embeddings put together by hand: the model, and that it is always the same
one."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from cvt import CvtForImageClassification
from pipeline.contract.corrections import Correction
from pipeline.contract.errors import ExitCode, RunError
from pipeline.contract.spec import FinetuneSpec
from pipeline.output.corrections.collected import add
from pipeline.runs.finetune.job import finetune, survey
from pipeline.runs.finetune.result import FinetuneResult
from pipeline.runs.relabel.linear_head import Head
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.finetuning import KINDS, close_labelled

FILES = {
    *("README.md", "config.json", "head.npz", "label_issues.parquet", "metrics.json"),
    *("model.safetensors", "predictions.parquet", "preprocessor_config.json", "report.html"),
    "training.json",
}


def train(source: Store, models: Store, checkpoint: Path, **settings: Any) -> FinetuneResult:
    given: dict[str, Any] = {"label_from": "directory"} | settings
    if given.get("labels") or given.get("label_column"):
        given |= {"label_from": settings.get("label_from")}
    spec = FinetuneSpec(outputs=(source.uri,), output=models.uri, model=str(checkpoint), **given)
    return finetune(spec)


def model_dir(result: FinetuneResult) -> Path:
    return Path(result.model_uri)


def weights(models: Store, run_id: str) -> bytes:
    return models.read_bytes(f"models/{run_id}/model.safetensors")


def test_the_model_is_one_that_transformers_loads(
    source: Store, models: Store, small_dir: Path
) -> None:
    close_labelled(source, small_dir, kinds=["cow", "bee", "ant"])
    result = train(source, models, small_dir)
    assert result.exit_code == ExitCode.OK
    assert models.read_json("latest.json") == {"model": f"models/{result.run_id}"}
    folder = model_dir(result)
    assert {path.name for path in folder.iterdir()} == FILES
    assert not models.list("_open")
    ours = CvtForImageClassification.from_pretrained(folder)
    theirs = transformers.CvtForImageClassification.from_pretrained(folder)
    assert theirs.config.id2label == ours.config.id2label == dict(enumerate(KINDS))
    assert theirs.config.label2id == {kind: number for number, kind in enumerate(KINDS)}
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(ours(pixels).logits, theirs.eval()(pixels).logits, atol=1e-5)
        embedding = ours(pixels).embedding.numpy()
        head = Head.load(str(folder / "head.npz"))
        assert np.allclose(head.logits(embedding), ours(pixels).logits.numpy(), atol=1e-4)
    assert head.classes == KINDS
    transformers.AutoImageProcessor.from_pretrained(folder)


def test_corrections_beside_the_output_are_labels(
    source: Store, models: Store, checkpoint: Path
) -> None:
    """By themselves, or over others: a class that no directory has, and images of none."""
    written = close_labelled(source, checkpoint)
    kinds = [*["fly"] * 20, *written.kinds[20:80]]
    said = [Correction(uri=uri, label=kind) for uri, kind in zip(written.uris, kinds, strict=False)]
    said += [Correction(uri=uri, verdict="none") for uri in written.uris[80:]]
    add(source, said, datetime(2026, 11, 27, tzinfo=UTC))
    alone = survey(FinetuneSpec(outputs=(source.uri,), output=models.uri, model=str(checkpoint)))
    assert alone.to_dict()["images"]["labelled"] == 80
    result = train(source, models, checkpoint)
    count = {one["class"]: one["train"] + one["support"] for one in result.metrics["classes"]}
    assert count == {"ant": 10, "bee": 30, "cow": 20, "fly": 20}
    without = train(source, models, checkpoint, corrections=False)
    assert [one["class"] for one in without.metrics["classes"]] == list(KINDS)


def test_the_backbone_is_the_parents(source: Store, models: Store, checkpoint: Path) -> None:
    close_labelled(source, checkpoint)
    folder = model_dir(train(source, models, checkpoint))
    ours = CvtForImageClassification.from_pretrained(folder).state_dict()
    parents = CvtForImageClassification.from_pretrained(checkpoint).state_dict()
    differing = {name for name in parents if not torch.equal(ours[name], parents[name])}
    assert differing == {"head.bias", "head.weight"}


def test_what_it_says_of_itself_adds_up(source: Store, models: Store, checkpoint: Path) -> None:
    close_labelled(source, checkpoint, each=40, spread=1.5)
    result = train(source, models, checkpoint)
    told = read_table(models, f"models/{result.run_id}/predictions.parquet")
    held = [row for row in told.to_pylist() if row["split"] == "validation"]
    right = sum(row["label"] == row["predicted"] for row in held)
    metrics = result.metrics
    assert len(told) == metrics["images"]["labelled"] == 120
    assert len(held) == metrics["images"]["validation"] > 10
    assert metrics["accuracy"] == pytest.approx(right / len(held))
    assert sum(cell["images"] for cell in metrics["confusion"]) == len(held)
    assert sum(one["support"] for one in metrics["classes"]) == len(held)
    assert sum(one["train"] for one in metrics["classes"]) == 120 - len(held)
    assert all(np.exp(-row["loss"]) <= row["score"] + 1e-5 for row in told.to_pylist())


def test_a_rare_class_counts_as_much_as_the_others(
    source: Store, models: Store, checkpoint: Path, tmp_path: Path
) -> None:
    """More of its held-out images are recognised, and the model says how it was trained; it is
    not that of other settings."""
    written = close_labelled(source, checkpoint, each=60, spread=3.0)
    rare = dict.fromkeys(written.uris[:45], "unsure")
    labels = (str(written.label_file(tmp_path / "labels.csv", rare)),)
    given: dict[str, Any] = {"labels": labels, "ignore": ("unsure",), "penalty": 100.0}
    results = [
        train(source, models, checkpoint, **given, class_weights=weights)
        for weights in ("none", "auto")
    ]
    recalls = [result.metrics["classes"][0]["recall"] for result in results]
    assert recalls[0] < recalls[1]
    assert results[0].run_id != results[1].run_id
    cards = [models.read_bytes(f"models/{one.run_id}/README.md").decode() for one in results]
    assert ["class weights: auto" in card for card in cards] == [False, True]
    assert models.read_json(f"models/{results[1].run_id}/training.json")["spec"]["ignore"]
    assert results[1].metrics["images"]["ignored"] == 45
    assert "ignored: 45 images, by their label" in results[1].lines()


def test_a_notebook_shows_how_good_it_is(source: Store, models: Store, checkpoint: Path) -> None:
    kinds = ["<b>ant", *(f"kind {number:02d}" for number in range(11))]
    close_labelled(source, checkpoint, each=12, kinds=kinds, spread=0.1)
    result = train(source, models, checkpoint, min_accuracy=1.0, penalty=1e9)
    cell = result._repr_html_()
    assert f"<b>Model {result.run_id}</b>" in cell
    assert f"{result.metrics['accuracy']:.1%}</b>accuracy on held-out images" in cell
    assert "Not published as the newest: the accuracy is " in cell
    assert f"<code>{result.report_uri}</code>" in cell
    assert "Classes, the worst first (10 of 12)" in cell
    assert cell.count("<tr>") == 1 + 10
    assert "<b>ant" not in cell
    assert repr(result).startswith(f"<FinetuneResult {result.run_id}: accuracy ")


def test_a_setting_that_is_not_given_changes_no_name() -> None:
    """An upgrade finds the models that are there."""
    spec = FinetuneSpec(outputs=("o",), output="m", model="s", label_from="directory")
    later = {"class_weights", "ignore", "multi_label", "val_labels"}
    assert not later & spec.of_model().keys()
    given = replace(spec, class_weights="auto", ignore=("x",), val_labels=("v.csv",))
    sets = replace(given, label_from=None, label_column="kind", multi_label=";")
    assert later <= sets.of_model().keys()


def test_the_same_call_finds_its_model(source: Store, models: Store, checkpoint: Path) -> None:
    close_labelled(source, checkpoint)
    first = train(source, models, checkpoint)
    before = models.list("models")
    again = train(source, models, checkpoint)
    assert (again.run_id, again.is_new, again.metrics) == (first.run_id, False, first.metrics)
    assert models.list("models") == before
    other = train(source, models, checkpoint, penalty=10.0)
    assert other.run_id != first.run_id
    assert models.read_json("latest.json") == {"model": f"models/{other.run_id}"}


@pytest.mark.parametrize("after", [0, 5, "move", 10])
def test_interrupted_anywhere_it_ends_in_the_same_model(
    source: Store,
    models: Store,
    checkpoint: Path,
    tmp_path: Path,
    after: int | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close_labelled(source, checkpoint)
    undisturbed = Store(str(tmp_path / "undisturbed"))
    expected = train(source, undisturbed, checkpoint)
    write, calls = Store.write_bytes, iter(range(100))

    def fail(self: Store, name: str, data: bytes) -> None:
        if "_lease" not in name and next(calls) == after:
            raise OSError("disk full")
        write(self, name, data)

    def stay(self: Store, old: str, new: str) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", fail)
        if after == "move":
            patch.setattr(Store, "move", stay)
        with pytest.raises(RunError, match="disk full; start the same command again"):
            train(source, models, checkpoint)
    assert models.read_json("latest.json") is None
    result = train(source, models, checkpoint)
    assert result.run_id == expected.run_id
    assert result.is_new == (after != 10)  # ten files, and the model is whole
    assert weights(models, result.run_id) == weights(undisturbed, expected.run_id)
    assert models.read_json("latest.json") == {"model": f"models/{result.run_id}"}
    assert not models.list("_open")


def test_the_order_of_rows_and_runs_changes_nothing(
    source: Store, models: Store, checkpoint: Path, tmp_path: Path
) -> None:
    whole = close_labelled(source, checkpoint, each=20)
    first = train(source, models, checkpoint)
    pieces = Store(str(tmp_path / "pieces"))
    by_kind = whole.vectors.reshape(3, 20, -1)
    for number in (2, 0, 1):
        kinds = [KINDS[number]]
        renumbered = close_labelled(
            pieces, checkpoint, each=20, kinds=kinds, vectors=by_kind[number],
            contents={n: f"s3://bucket/in{20 * number + n:060x}" for n in range(20)},
            first=20 * number,
        )  # fmt: skip
        assert set(renumbered.uris) <= set(whole.uris)
    second = train(pieces, models, checkpoint)
    assert weights(models, first.run_id) == weights(models, second.run_id)


def test_a_survey_writes_nothing(source: Store, models: Store, checkpoint: Path) -> None:
    close_labelled(source, checkpoint, failures=["corrupt"])
    spec = FinetuneSpec(
        outputs=(source.uri,), output=models.uri, model=str(checkpoint), label_from="directory"
    )
    found = survey(spec)
    assert found.to_dict()["images"]["labelled"] == 90
    assert list(found.to_dict()["classes"]) == list(KINDS)
    assert found.lines()[0].startswith("90 images of 3 classes: ")
    assert not Path(models.uri).exists()
    result = finetune(spec)
    assert json.loads(json.dumps(found.to_dict()))["images"] == result.metrics["images"]


@pytest.mark.server
def test_into_a_bucket(
    source: Store, checkpoint: Path, request: pytest.FixtureRequest, models: Store
) -> None:
    bucket = Store(f"{request.getfixturevalue('s3_bucket').uri}/models")
    close_labelled(source, checkpoint)
    local, remote = train(source, models, checkpoint), train(source, bucket, checkpoint)
    assert weights(models, local.run_id) == weights(bucket, remote.run_id)
    assert bucket.read_json("latest.json") == {"model": f"models/{remote.run_id}"}
    assert {name.rpartition("/")[2] for name in bucket.list("models")} == FILES
    assert not bucket.list("_open")
    assert not train(source, bucket, checkpoint).is_new
