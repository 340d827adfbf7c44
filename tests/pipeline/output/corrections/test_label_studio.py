"""What Label Studio exports, and what is refused."""

import json
from typing import Any

import pytest

from pipeline.contract.corrections import Correction
from pipeline.contract.errors import UsageError
from pipeline.output.corrections.label_studio import BAD_PICTURE, NO_CLASS, read_export

RUN = "20261126T000000Z-aa"


def annotation(*choices: str, name: str = "label", **others: Any) -> dict[str, Any]:
    value = {"type": "choices", "from_name": name, "to_name": "image"}
    result = [value | {"value": {"choices": list(choices)}}] if choices else []
    return {
        "completed_by": {"id": 3, "email": "ann@example.org"},
        "updated_at": "2026-11-27T02:03:04.567890Z",
        "was_cancelled": False,
        "result": result,
    } | others


def task(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"uri": "s3://b/a.jpg"} | data, "annotations": list(annotations)}


def read(*tasks: Any) -> list[Correction]:
    return read_export(json.dumps(tasks).encode(), "x.json")


def test_an_annotation_is_a_correction() -> None:
    ours = {"image": "data:image/jpeg;base64,xx", "queue": "random", "run_id": RUN}
    said = {"proposed": "dog", "score": 0.0}
    assert read(task(annotation("cat"), **ours, **said)) == [
        Correction(
            uri="s3://b/a.jpg",
            label="cat",
            queue="random",
            proposed="dog",
            score=0.0,
            run_id=RUN,
            who="ann@example.org",
            when="2026-11-27T02:03:04.567Z",
        )
    ]


def test_verdicts_and_what_says_nothing() -> None:
    skipped = annotation("cat", was_cancelled=True)
    found = read(task(annotation(NO_CLASS), skipped, annotation(), annotation(BAD_PICTURE)))
    assert [(one.verdict, one.label) for one in found] == [("none", ""), ("bad_picture", "")]


def test_tasks_that_others_made() -> None:
    """Whose images are URIs, and whose choice has another name."""
    made = {"id": 1, "data": {"image": "s3://b/c.jpg"}}
    (found,) = read(made | {"annotations": [annotation("cat", name="choice", completed_by=5)]})
    assert (found.uri, found.label, found.who) == ("s3://b/c.jpg", "cat", "5")


def test_json_min() -> None:
    (one, two) = read(
        {"image": "s3://b/c.jpg", "label": "cat", "annotator": 5, "created_at": "2026-01-01"},
        {"id": 2, "image": "s3://b/d.jpg", "label": {"choices": ["dog"]}},
        {"id": 3, "image": "s3://b/d.jpg"},
    )  # fmt: skip
    assert (one.label, one.who, one.when) == ("cat", "5", "2026-01-01T00:00:00.000Z")
    assert (two.uri, two.label) == ("s3://b/d.jpg", "dog")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[{", "x.json: Expecting"),
        ("[" * 100_000, "x.json: "),
        ('{"tasks": 1}', "it is no list of tasks"),
        ("[7]", "task 0 is no object"),
        ('[{"id": 5, "annotations": []}]', "task 5: 'data'"),
        ('[{"id": 5, "data": [], "annotations": [7]}]', "task 5: "),
        (json.dumps([task(annotation("cat", "dog"))]), "task 7: 2 classes are chosen"),
        (json.dumps([task(annotation("cat"), uri=None)]), "task 7: uri is empty"),
        (json.dumps([task(annotation("cat"), queue="odd")]), "task 7: queue is 'odd'"),
        (json.dumps([task(annotation("\ud800"))]), "task 7: 'utf-8' codec can't encode"),
        (json.dumps([task(annotation("cat", updated_at="now"))]), "task 7: when is 'now'"),
        (
            json.dumps([task(annotation("cat", name="a") | {"result": [
                *annotation("cat", name="a")["result"], *annotation("cat", name="b")["result"],
            ]})]),
            "task 7: it has the choices a, b, but no label",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, cause: str) -> None:
    with pytest.raises(UsageError) as error:
        read_export(text.encode(), "x.json")
    assert cause in str(error.value)
    assert "export it from Label Studio as JSON" in str(error.value)
    assert "\n" not in str(error.value)
