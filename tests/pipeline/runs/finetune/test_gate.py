"""When a model is not to be the newest one, and how it meets the one that is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import ExitCode, RunError, UsageError
from pipeline.contract.spec import FinetuneSpec
from pipeline.runs.finetune.champion import Champion, Said
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.job import finetune
from pipeline.runs.finetune.result import FinetuneResult
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.finetuning import Labelled, close_labelled

Train = Callable[..., FinetuneResult]


@pytest.fixture
def written(source: Store, checkpoint: Path) -> Labelled:
    return close_labelled(source, checkpoint, each=40, spread=0.9, failures=["corrupt"] * 3)


@pytest.fixture
def train(source: Store, models: Store, checkpoint: Path, written: Labelled) -> Train:
    def call(**settings: Any) -> FinetuneResult:
        given = settings if "labels" in settings else {"label_from": "directory"} | settings
        given = {"pictures": 0} | given  # of images that no storage has
        spec = FinetuneSpec(
            outputs=(source.uri,), output=models.uri, model=str(checkpoint), **given
        )
        return finetune(spec)

    return call


def test_too_low_an_accuracy_leaves_the_newest_model_alone(models: Store, train: Train) -> None:
    good = train()
    poor = train(min_accuracy=1.0, penalty=1e6)
    assert poor.exit_code == ExitCode.TOO_MANY_FAILURES
    assert "less than the 100.0% asked for; latest.json was left" in str(poor.complaint)
    assert models.read_json("latest.json") == {"model": f"models/{good.run_id}"}
    assert models.exists(f"models/{poor.run_id}/model.safetensors")
    assert train(min_accuracy=1.0, penalty=1e6).exit_code == ExitCode.TOO_MANY_FAILURES


def test_too_many_failures_among_the_labelled(
    source: Store, train: Train, written: Labelled, tmp_path: Path
) -> None:
    bad = {f"s3://bucket/image-bad{number:06d}.jpg": "ant" for number in range(3)}
    labels = (str(written.label_file(tmp_path / "l.csv", bad)),)
    result = train(labels=labels, max_failure_rate=0.01)
    assert result.metrics["images"]["failed"] == 3
    assert str(result.complaint).startswith("2.4% of the labelled images failed, more than")
    assert train(labels=labels, max_failure_rate=0.03).exit_code == ExitCode.OK


def test_a_challenger_of_wrong_labels_loses(
    models: Store, train: Train, written: Labelled, tmp_path: Path
) -> None:
    """Ants and bees are taken for each other in what it is trained on, not in what is held out."""
    champion = train()
    told = read_table(models, f"models/{champion.run_id}/predictions.parquet").to_pylist()
    trained = {row["uri"]: row["label"] for row in told if row["split"] == "train"}
    other = {"ant": "bee", "bee": "ant", "cow": "cow"}
    wrong = {uri: other[label] for uri, label in trained.items()}
    labels = written.label_file(tmp_path / "l.csv", wrong)
    given = {"labels": (str(labels),), "champion": models.uri, "fail_if_worse": True}
    challenger = train(**given)
    duel = challenger.metrics["champion"]
    assert challenger.exit_code == ExitCode.TOO_MANY_FAILURES
    assert "the champion is right about" in str(challenger.complaint)
    assert duel["model"] == champion.model_uri
    assert duel["only_champion_right"] > duel["only_challenger_right"]
    assert 0 < duel["p_value"] < 1
    assert set(duel["lost_recall"]) == {"ant", "bee"}
    by_class = {one["class"]: one for one in duel["classes"]}
    assert by_class["cow"]["champion"] == by_class["cow"]["challenger"]
    assert sum(one["images"] for one in duel["classes"]) == duel["images"]
    told = read_table(models, f"models/{challenger.run_id}/predictions.parquet").to_pylist()
    held = [row for row in told if row["split"] == "validation"]
    assert [row["champion"] is None for row in told] == [row["split"] == "train" for row in told]
    right = sum(row["champion"] == row["label"] for row in held)
    assert duel["accuracy"] == pytest.approx(right / len(held))
    report = models.read_bytes(f"models/{challenger.run_id}/report.html").decode()
    assert "More than 5 points of recall are lost by ant, bee." in report
    assert models.read_json("latest.json") == {"model": f"models/{champion.run_id}"}


def test_what_the_champion_could_not_read_is_left_out(
    models: Store, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    answers, missing = Champion.answers, 1

    def some(self: Champion, fitted: Fitted) -> dict[str, Said]:
        return dict(list(answers(self, fitted).items())[missing:])

    monkeypatch.setattr(Champion, "answers", some)
    metrics = train(champion=models.uri).metrics
    assert metrics["champion"]["left_out"] == 1
    assert metrics["champion"]["images"] == metrics["images"]["validation"] - 1
    missing = 10**6
    with pytest.raises(RunError, match="could read none of the images held out"):
        train(champion=models.uri, penalty=2.0)


def test_a_champion_that_lacks_a_class_is_met_on_the_others(
    models: Store, train: Train, written: Labelled, tmp_path: Path
) -> None:
    two = tmp_path / "two.csv"
    rows = [(u, k) for u, k in zip(written.uris, written.kinds, strict=True) if k != "cow"]
    two.write_text("uri,label\n" + "".join(f"{uri},{kind}\n" for uri, kind in rows))
    train(labels=(str(two),))
    met = train(champion=models.uri).metrics
    assert met["champion"]["unknown_to_champion"] == ["cow"]
    assert met["champion"]["left_out"] == met["classes"][2]["support"] > 0
    assert met["champion"]["images"] + met["champion"]["left_out"] == met["images"]["validation"]


def test_the_parent_knows_none_of_the_classes(
    checkpoint: Path, train: Train, models: Store
) -> None:
    with pytest.raises(UsageError, match="knows none of the classes that are held out"):
        train(champion=str(checkpoint))
    assert not Path(models.uri).exists()


def test_wrong_labels_are_doubted(
    models: Store, train: Train, written: Labelled, tmp_path: Path
) -> None:
    wrong = dict.fromkeys(written.uris[:80:10], "cow")
    labels = written.label_file(tmp_path / "l.csv", wrong)
    result = train(labels=(str(labels),))
    found = read_table(models, f"models/{result.run_id}/label_issues.parquet")
    doubted = set(found["uri"].to_pylist())
    assert len(wrong.keys() & doubted) >= 6
    assert result.metrics["label_issues"] == len(found) < 20
    report = models.read_bytes(f"models/{result.run_id}/report.html").decode()
    assert found["uri"][0].as_py() in report
    for row in found.to_pylist():
        assert row["label"] != row["suggested"]
        assert row["score"] < row["suggested_score"]
