"""Settings as keywords: their names, what they take, and what is said of others."""

import inspect
from dataclasses import MISSING
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pipeline
from pipeline import FinetuneSpec, UsageError, classify, embed, finetune, nightly, relabel
from pipeline.contract.spec import SETTINGS, RelabelSpec, settings
from pipeline.runs.python.keywords import Keywords, flat

RUN = Keywords(SETTINGS.values())
MODEL: dict[str, Any] = {"model": "m", "output": "out"}


@pytest.mark.parametrize("one", SETTINGS.values(), ids=lambda one: one.place)
def test_every_setting_is_called_as_its_flag_is(one: Any) -> None:
    value = "x" if one.default is MISSING else one.default
    found = RUN.values({one.flag.removeprefix("--").replace("-", "_"): value})
    assert list(found) == [one.place]


def test_the_names_of_a_nightly_file_are_understood() -> None:
    assert RUN.values({"embeddings": True, "format": "images"}) == {
        "output.embeddings": True,
        "inputs.format": "images",
    }


def test_a_field_whose_name_says_nothing_alone_has_none() -> None:
    for name in ("uri", "uris", "source"):
        with pytest.raises(UsageError, match=f"there is no setting {name}"):
            RUN.values({name: "x"})


@pytest.mark.parametrize(
    ("given", "place", "value"),
    [
        ({"keep": "caption, id"}, "inputs.keep", ("caption", "id")),
        ({"keep": ["a,b"]}, "inputs.keep", ("a,b",)),
        ({"exclude": "a,b/*.gif"}, "inputs.exclude", ("a,b/*.gif",)),
        ({"inputs": "a,b"}, "inputs.uris", ("a,b",)),
        ({"inputs": [Path("a"), "b"]}, "inputs.uris", ("a", "b")),
        ({"model": Path("m")}, "model.source", "m"),
        ({"batch_size": "auto"}, "compute.batch_size", "auto"),
        ({"batch_size": 8}, "compute.batch_size", 8),
        ({"thresholds": {"cat": 1}}, "output.thresholds", {"cat": 1.0}),
        ({"compile": None}, "compute.compile", None),
    ],
)
def test_values(given: dict[str, Any], place: str, value: Any) -> None:
    assert RUN.values(given) == {place: value}


def test_inputs_come_alone_and_in_lists() -> None:
    paths = (Path("b"), "c")
    assert flat(["a", paths, iter(["d"])]) == ["a", Path("b"), "c", "d"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batchsize": 8}, "there is no setting batchsize; did you mean batch_size?"),
        ({"With_Embedings": 1}, "there is no setting With_Embedings; did you"),
        ({"embeddings": True, "with_embeddings": True},
         "embeddings and with_embeddings are the same setting; give one of them"),
        ({"dtype": "fp16"}, "dtype is 'fp16'; accepted: auto, float32, tf32, bfloat16, float16"),
        ({"batch_size": "8 or so"}, "batch_size is '8 or so'; it must be a valid integer"),
        ({"top_k": 0}, "top_k is 0; it must be 1 or more"),
        ({"deadline": "noon"}, "deadline is 'noon'; it must be a time of day, HH:MM"),
        ({"keep": 3}, "keep is 3; it must be a valid tuple"),
        ({"full": True, "limit": 3}, "limit excludes full, which replaces"),
        ({"model": object}, "model is <class 'object'>; it must be a valid string"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as found:
        classify("in", **(MODEL | given))
    assert str(found.value).startswith(said)
    assert "\n" not in str(found.value)
    assert "<model" not in str(found.value)


def test_what_is_unlike_everything_is_told_all_there_is() -> None:
    with pytest.raises(UsageError, match=r"there is no setting xyzzy; known: .*dtype.*batch_size"):
        classify("in", **MODEL, xyzzy=1)


def test_no_input_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no INPUT given: name a directory"):
        classify([], **MODEL)
    with pytest.raises(UsageError, match="one INPUT is empty"):
        classify("", **MODEL)


def test_embeddings_are_no_setting_of_embed() -> None:
    with pytest.raises(UsageError, match="there is no setting with_embeddings"):
        embed("in", **MODEL, with_embeddings=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"inputs": {"uris": ["in"]}}, "the configuration: model: "),
        ({"inputs": {"uri": ["in"]}}, "the configuration: there is no field inputs.uri; did you"),
    ],
)
def test_a_nightly_mapping_is_checked_like_its_file(content: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as found:
        nightly(content)
    assert str(found.value).startswith(said)


def test_a_nightly_file_and_what_is_to_be_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere\.yaml"):
        nightly(tmp_path / "nowhere.yaml")
    content = {
        "inputs": {"uris": ["i"]},
        "model": {"source": "m"},
        "output": {"uri": "o", "top_k": 1},
    }
    with pytest.raises(UsageError, match=r"^sample excludes full"):
        nightly(content, full=True, sample="1%")


def test_relabelling_has_settings_of_its_own() -> None:
    with pytest.raises(UsageError, match="nothing to do: give label_map, thresholds, head"):
        relabel("old", output="new")
    with pytest.raises(UsageError, match="no setting batch_size"):
        relabel("old", output="new", batch_size=3)
    with pytest.raises(UsageError, match="label_map is 3; it must be a valid dictionary"):
        relabel("old", output="new", label_map=3)


def test_finetuning_has_settings_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[FinetuneSpec] = []

    def train(spec: FinetuneSpec) -> SimpleNamespace:
        asked.append(spec)
        return SimpleNamespace(complaint="worse than before")

    monkeypatch.setattr("pipeline.runs.finetune.job.finetune", train)
    finetune("out", [Path("more")], **(MODEL | {"output": "models"}), labels=Path("a,b.csv"))
    assert asked[0].outputs == ("out", "more")
    assert (asked[0].labels, asked[0].output, asked[0].model) == (("a,b.csv",), "models", "m")
    assert caplog.messages == ["worse than before"]
    with pytest.raises(UsageError, match=r"no setting label; did you mean labels\?"):
        finetune("out", **MODEL, label="a.csv")


@pytest.mark.parametrize(
    ("function", "kind"), [(classify, None), (embed, None), (relabel, RelabelSpec)]
)
def test_a_notebook_completes_and_explains_them(function: Any, kind: Any) -> None:
    some = settings(kind, "relabel") if kind else SETTINGS.values()
    wanted = {one.dest for one in some} - ({"with_embeddings"} if function is embed else set())
    assert wanted <= set(inspect.signature(function).parameters)
    for name in wanted - {"inputs", "model", "output", "source"}:
        assert f"\n    {name}: " in (inspect.getdoc(function) or "")


def test_everything_that_is_offered_is_there() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ == name
        assert name in dir(pipeline)
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'clasify'"):
        pipeline.clasify  # type: ignore[attr-defined]  # noqa: B018
