"""Fine-tunings on sets of labels, whole: from embeddings put together by hand to a model that
transformers takes for one with several labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.contract.errors import ExitCode, UsageError
from pipeline.contract.spec import FinetuneSpec, ModelSpec
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.training.recipes import Recipe
from pipeline.runs.finetune.fitted.sets import FittedSets
from pipeline.runs.finetune.job import finetune, survey
from pipeline.runs.finetune.labelled.kinds import SetOfClasses
from pipeline.runs.finetune.labelled.samples import Samples
from pipeline.runs.finetune.labelled.split import Division
from pipeline.runs.finetune.result import FinetuneResult
from pipeline.runs.relabel.linear_head import Head
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.finetuning import close_labelled

CLASSES = ("cat", "dog", "grass")
SETS = SetOfClasses(";")
Train = Callable[..., FinetuneResult]


def write_labels(source: Store, checkpoint: Path, path: Path) -> Path:
    """Of 120 images whose embeddings are noise around the sum of what is to be seen; the last one
    of every ten shows nothing, and two have no label."""
    rng = np.random.default_rng(0)
    present = rng.random((120, 3)) < [0.5, 0.4, 0.2]
    present[9::10] = False
    names = [";".join(np.array(CLASSES)[row][::-1]) for row in present]
    vectors = embeddings(present, rng, checkpoint)
    written = close_labelled(source, checkpoint, each=120, kinds=["any"], vectors=vectors)
    rows = zip(written.uris[2:], names[2:], strict=True)
    path.write_text("uri,label\n" + "".join(f"{uri},{name}\n" for uri, name in rows))
    return path


def embeddings(
    present: npt.NDArray[np.bool_], rng: np.random.Generator, checkpoint: Path
) -> npt.NDArray[np.float32]:
    found = load_checkpoint(ModelSpec(source=str(checkpoint)))
    width = found.embedding_width("cls_norm")
    noise = 1.5 * rng.normal(size=(len(present), width))
    return (present @ rng.normal(size=(3, width)) + noise).astype(np.float32)


@pytest.fixture
def labels(source: Store, checkpoint: Path, tmp_path: Path) -> Path:
    return write_labels(source, checkpoint, tmp_path / "labels.csv")


@pytest.fixture
def spec(source: Store, models: Store, checkpoint: Path, labels: Path) -> FinetuneSpec:
    return FinetuneSpec(
        outputs=(source.uri,),
        output=models.uri,
        model=str(checkpoint),
        labels=(str(labels),),
        multi_label=";",
    )


@pytest.fixture
def train(spec: FinetuneSpec) -> Train:
    def call(**settings: Any) -> FinetuneResult:
        return finetune(FinetuneSpec(**vars(spec) | settings))

    return call


def predictions(result: FinetuneResult) -> dict[str, list[Any]]:
    found = read_table(result.store, f"models/{result.run_id}/predictions.parquet")
    return {name: found[name].to_pylist() for name in found.column_names}


def as_truths(texts: list[str]) -> npt.NDArray[np.bool_]:
    return np.array([[name in text.split(";") for name in CLASSES] for text in texts])


@pytest.mark.parametrize("weights", ["none", "auto"])
def test_the_classifier_is_scikit_learns(
    train: Train, source: Store, labels: Path, weights: str
) -> None:
    """One of each class against the rest, on the images that are not held out."""
    told = predictions(train(class_weights=weights))
    rows = read_table(source, next(name for name in source.list("data")))
    by_uri = dict(zip(rows["uri"].to_pylist(), rows["embedding"].to_pylist(), strict=True))
    vectors = np.array([by_uri[uri] for uri in told["uri"]])
    trained = np.array(told["split"]) == "train"
    truths = as_truths(told["label"])
    regression = LogisticRegression(
        class_weight="balanced" if weights == "auto" else None, tol=1e-10, max_iter=10_000
    )
    theirs = make_pipeline(StandardScaler(), OneVsRestClassifier(regression))
    theirs.fit(vectors[trained], truths[trained])
    assert np.abs(theirs.predict_proba(vectors) - np.array(told["scores"])).max() < 1e-4


def test_what_it_says_of_itself_is_what_scikit_learn_says(train: Train) -> None:
    result = train()
    assert result.exit_code == ExitCode.OK
    told, metrics = predictions(result), result.metrics
    held = np.array(told["split"]) == "validation"
    truths, said = as_truths(told["label"])[held], as_truths(told["predicted"])[held]
    scores = np.array(told["scores"])[held]
    assert (said == (scores >= 0.5)).all()
    assert metrics["images"]["labelled"] == 118
    assert metrics["images"]["unlabelled"] == 2
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truths, said))
    assert metrics["micro_f1"] == pytest.approx(f1_score(truths, said, average="micro"))
    assert metrics["macro_f1"] == pytest.approx(f1_score(truths, said, average="macro"))
    precision = average_precision_score(truths, scores, average=None)
    assert [one["average_precision"] for one in metrics["classes"]] == pytest.approx(precision)
    assert [one["class"] for one in metrics["classes"]] == list(CLASSES)
    assert "confusion" not in metrics
    assert metrics["accuracy"] > 0.5
    assert 0 < metrics["label_issues"] < 30
    assert "" in told["label"]
    sure = np.maximum(scores, 1 - scores).min(axis=1)
    assert np.allclose(np.array(told["score"])[held], sure)
    right = np.where(truths, scores, 1 - scores)
    assert np.allclose(np.array(told["loss"])[held], -np.log(right).mean(axis=1), atol=1e-4)


def test_transformers_and_our_commands_take_it_for_one_with_several_labels(
    source: Store, models: Store, small_dir: Path, tmp_path: Path
) -> None:
    labels = write_labels(source, small_dir, tmp_path / "labels.csv")
    spec = FinetuneSpec(
        outputs=(source.uri,),
        output=models.uri,
        model=str(small_dir),
        labels=(str(labels),),
        multi_label=";",
    )
    folder = Path(finetune(spec).model_uri)
    theirs = transformers.CvtForImageClassification.from_pretrained(folder).eval()
    assert theirs.config.problem_type == "multi_label_classification"
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    ours = load_checkpoint(ModelSpec(source=str(folder)))
    size = ours.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    values = processor(list(pixels), do_resize=False, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = theirs(values).logits.numpy()
    assert np.abs(ours.reference(pixels, "cls_norm").logits - logits).max() < 1e-4
    assert Head.load(str(folder / "head.npz")).scores == "sigmoid"


def test_page_card_and_doubts_speak_of_sets(train: Train) -> None:
    result = train()
    folder = Path(result.model_uri)
    page, card = (folder / "report.html").read_text(), (folder / "README.md").read_text()
    assert "accuracy on held-out images, all labels right" in page
    assert "no class is taken for another one" in page
    assert "taken for<th>" not in page
    assert "<th>average precision" in page
    assert "problem type multi_label_classification" in card
    assert f"Micro F1 is {result.metrics['micro_f1']:.3f}" in card
    assert any("micro F1" in line for line in result.lines())
    assert result.to_dict()["micro_f1"] == result.metrics["micro_f1"]
    doubts = read_table(result.store, f"models/{result.run_id}/label_issues.parquet").to_pylist()
    assert len(doubts) == result.metrics["label_issues"]
    assert all(row["label"] != row["suggested"] for row in doubts)
    assert all(row["score"] < 0.5 < row["suggested_score"] for row in doubts)


def test_a_network_that_learns_them_has_their_weights_and_answers() -> None:
    """Presence and absence of each class count half; what is said is the sigmoid."""
    labels = ["a;b", "a", ";", "b", "a;b", "a", "a", ";"]
    division = Division.of(labels, [f"{n}" for n in range(8)], 0.2, [True] + [False] * 7, SETS)
    samples = Samples(
        [f"/{n}" for n in range(8)], [], [], labels, np.zeros((8, 4), np.float32), 0, 0, []
    )
    fitted = FittedSets.of(samples, division, 1.0)
    recipe = fitted.balanced(Recipe())
    assert recipe.class_weights == pytest.approx([7 / (2 * 4), 7 / (2 * 2)])
    assert recipe.absent_weights == pytest.approx([7 / (2 * 3), 7 / (2 * 5)])
    logits = torch.linspace(-3, 3, 16).view(8, 2)
    assert np.allclose(fitted.as_probabilities(logits), logits.sigmoid().numpy())


def test_the_same_call_finds_its_model_and_another_separator_is_another(
    train: Train, labels: Path
) -> None:
    first = train()
    assert not train().is_new
    labels.write_text(labels.read_text().replace(";", "|"))
    second = train(multi_label="|")
    assert second.run_id != first.run_id
    assert second.metrics["classes"] == first.metrics["classes"]


def test_a_survey_counts_every_label(spec: FinetuneSpec, labels: Path) -> None:
    found = survey(spec)
    sides = found.to_dict()["classes"]
    told = [line.rpartition(",")[2].split(";") for line in labels.read_text().splitlines()[1:]]
    for name in CLASSES:
        assert sum(sides[name].values()) == sum(name in names for names in told)
    none = sum(names == [""] for names in told)
    assert found.to_dict()["of_no_class"] == none
    assert f"images labelled with no class: {none}" in found.lines()


def test_the_gate_asks_for_all_labels_of_an_image(train: Train) -> None:
    result = train(min_accuracy=1.0, penalty=1e6)
    assert result.exit_code == ExitCode.TOO_MANY_FAILURES
    assert f"the accuracy is {result.metrics['accuracy']:.1%}, less than" in str(result.complaint)


def test_the_champion_is_right_where_its_whole_set_is(
    train: Train, models: Store, checkpoint: Path
) -> None:
    champion = train()
    challenger = train(penalty=1e5, champion=models.uri, fail_if_worse=True, pictures=0)
    told, before = predictions(challenger), predictions(champion)
    held = [row for row, split in enumerate(told["split"]) if split == "validation"]
    assert [told["champion"][row] for row in held] == [before["predicted"][row] for row in held]
    duel = challenger.metrics["champion"]
    assert (duel["images"], duel["left_out"]) == (len(held), 0)
    assert duel["accuracy"] == champion.metrics["accuracy"]
    assert duel["challengers_accuracy"] == challenger.metrics["accuracy"] < duel["accuracy"]
    for one, was, now in zip(
        duel["classes"], champion.metrics["classes"], challenger.metrics["classes"], strict=True
    ):
        assert one["champion"] == pytest.approx(was["recall"])
        assert one["challenger"] == pytest.approx(now["recall"])
    assert challenger.exit_code == ExitCode.TOO_MANY_FAILURES
    report = (Path(challenger.model_uri) / "report.html").read_text()
    assert "Against the champion" in report
    assert "The champion alone is right" not in report  # there are no pictures
    with pytest.raises(UsageError, match=r"says one class of an image, and finetune\.multi_label"):
        train(champion=str(checkpoint))


def test_classes_that_the_champion_does_not_know_are_not_looked_at(
    train: Train, labels: Path, models: Store
) -> None:
    train(labels=(without(labels, "dog"),))
    result = train(champion=models.uri, pictures=0)
    duel, told = result.metrics["champion"], predictions(result)["contest"]
    assert set(told) == {None, "same"}
    assert sum(one is not None for one in told) == duel["images"]
    assert (duel["unknown_to_champion"], duel["left_out"]) == (["dog"], 0)
    assert [one["class"] for one in duel["classes"]] == ["cat", "grass"]
    assert duel["accuracy"] == duel["challengers_accuracy"]


def without(labels: Path, name: str) -> str:
    """A file of the same labels but one."""
    found = labels.with_name("fewer.csv")
    found.write_text(labels.read_text().replace(name, ""))
    return str(found)


def test_what_is_of_one_label_is_refused(spec: FinetuneSpec) -> None:
    with pytest.raises(UsageError, match=r"multi_label excludes finetune\.label_from; give"):
        FinetuneSpec(**vars(spec) | {"label_from": "directory"})
    with pytest.raises(UsageError, match="multi_label is empty"):
        FinetuneSpec(**vars(spec) | {"multi_label": ""})
