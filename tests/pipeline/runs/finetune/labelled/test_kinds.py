"""Sets of classes out of cells, and as numbers; what is refused, and in which words."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.corrections import Correction
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import FinetuneSpec
from pipeline.output.corrections.collected import add
from pipeline.runs.finetune.labelled.kinds import SetOfClasses
from pipeline.runs.finetune.labelled.labels import Labels, read_labels
from pipeline.runs.finetune.labelled.split import Division
from pipeline.storage.store import Store

SETS = SetOfClasses(";")
SPEC = FinetuneSpec(outputs=("o",), output="m", model="s", labels=("x",), multi_label=";")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("dog;grass", ("dog", "grass")),
        (" grass ; dog;;dog ", ("dog", "grass")),
        (["grass", "dog"], ("dog", "grass")),
        ("sea shore", ("sea shore",)),
        (7, ("7",)),
        ("", ()),
        (";", ()),
        ([], ()),
        (["", None], ()),
        ('["grass", "dog"]', ("dog", "grass")),
        (" [7]", ("7",)),
        ("[]", ()),
        ("[dog", ("[dog",)),
        pytest.param("[" * 10**5, ("[" * 10**5,), id="deep"),
    ],
)
def test_a_cell_is_a_set(value: Any, names: tuple[str, ...]) -> None:
    label = SETS.label(value)
    assert label
    assert SETS.names(label) == names
    assert SETS.label(label) == label


@pytest.mark.parametrize("value", [None, float("nan")])
def test_null_is_no_label(value: Any) -> None:
    assert SETS.label(value) is None


def test_what_stands_between_names() -> None:
    assert SetOfClasses(" ").names(SetOfClasses(" ").label("haze primary") or "") == (
        "haze",
        "primary",
    )
    assert SetOfClasses(" ").names(SetOfClasses(" ").label("") or "?") == ()
    with pytest.raises(UsageError, match=r"the labels \['a-', 'b'\] cannot be told apart by '--'"):
        SetOfClasses("--").label(["a-", "b"])
    with pytest.raises(UsageError, match=r"cannot be told apart by ';'; give finetune.multi_label"):
        SETS.label(["a;b"])
    with pytest.raises(UsageError, match="must be a text or a whole number"):
        SETS.label({"a": 1})
    with pytest.raises(UsageError, match="must be a text or a whole number"):
        SETS.label('[["dog"]]')


def test_csv_jsonl_and_parquet_say_the_same(tmp_path: Path) -> None:
    """An empty text is the set of none, and what has no value says nothing."""
    rows = [
        {"uri": "s3://b/1.jpg", "label": ["dog", "grass"]},
        {"uri": "s3://b/2.jpg", "label": []},
        {"uri": "s3://b/3.jpg", "label": None},
    ]
    (tmp_path / "a.csv").write_text("uri,label\ns3://b/1.jpg,grass;dog\ns3://b/2.jpg,\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [Correction(uri="s3://b/1.jpg", label="dog;grass")]
    expected += [Correction(uri="s3://b/2.jpg", label=";")]
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert read_labels(str(tmp_path / name), SETS) == expected
    twice = tmp_path / "twice.csv"
    twice.write_text("uri,label\n/1.jpg,a;b\n/1.jpg,b; a\n")
    assert len(read_labels(str(twice), SETS)) == 1
    twice.write_text("uri,label\n/1.jpg,a;b\n/1.jpg,\n")
    with pytest.raises(UsageError, match="two labels, namely /1\\.jpg: a;b and ;"):
        read_labels(str(twice), SETS)


def test_texts_and_lists_in_one_column(tmp_path: Path) -> None:
    """Which the reader makes texts of."""
    labels = tmp_path / "a.jsonl"
    given: list[Any] = ["dog", ["grass", "dog"], [], 7]
    rows = [{"uri": f"/{number}.jpg", "label": label} for number, label in enumerate(given)]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [SETS.names(one.label) for one in read_labels(str(labels), SETS)]
    assert told == [("dog",), ("dog", "grass"), (), ("7",)]


def test_a_blank_row_says_nothing(tmp_path: Path) -> None:
    """As spreadsheets leave them."""
    labels = tmp_path / "a.csv"
    labels.write_text("uri,label\n/1.jpg,a\n,\n , \n/2.jpg,\n")
    assert [one.uri for one in read_labels(str(labels), SETS)] == ["/1.jpg", "/2.jpg"]
    labels.write_text("uri,label\n/1.jpg,a\n,;\n")
    with pytest.raises(UsageError, match="row 2 has the label ';', but names no image"):
        read_labels(str(labels), SETS)


def test_a_queue_that_somebody_has_filled_in(tmp_path: Path) -> None:
    """What is empty there was not corrected; the separator alone is the set of none."""
    queue = tmp_path / "review.csv"
    header = "uri,label,score,reason,value,correct_label\n"
    rows = ["/1.jpg,a,0.5,uncertain,0,", "/2.jpg,a,0.5,uncertain,0,;", "/3.jpg,a,1,x,0,a;c"]
    queue.write_text(header + "\n".join(rows))
    told = {one.uri: SETS.names(one.label) for one in read_labels(str(queue), SETS)}
    assert told == {"/2.jpg": (), "/3.jpg": ("a", "c")}


def test_corrections_are_of_one_class(tmp_path: Path) -> None:
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("uri,label,verdict\n/1.jpg,ant,label\n")
    with pytest.raises(UsageError, match=r"corrections\.csv has corrections, which say one class"):
        Labels.read(replace(SPEC, labels=(str(corrections),)))
    labels = tmp_path / "labels.csv"
    labels.write_text("uri,label\n/1.jpg,a;b\n/2.jpg,\n")
    store = Store(str(tmp_path / "out"))
    add(store, [Correction(uri="/1.jpg", label="a")], datetime(2026, 11, 27, tzinfo=UTC))
    spec = replace(SPEC, labels=(str(labels),), ignore=("b",))
    with pytest.raises(UsageError, match=r"corrections of the output say one class of an image"):
        Labels.read(spec, [store])
    found = Labels.read(replace(spec, corrections=False), [store])
    assert found.named == {"/1.jpg": "a;b", "/2.jpg": ";"}
    assert [found.left_out(label) for label in ("a;b", "a;bb", ";")] == ["b", None, None]


def test_as_numbers() -> None:
    labels = ["a;b", ";", "b", "b;c", "a", "c", ";", "a;b;c"]
    keys = [str(number) for number in range(8)]
    given = [True, *[False] * 6, True]
    division = Division.of(labels, keys, 0.2, given, SETS)
    assert division.classes == ("a", "b", "c")
    assert division.targets.tolist() == [
        [1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1],
    ]  # fmt: skip
    assert division.counts(held_out=False) == {"a": 1, "b": 2, "c": 2}
    assert division.counts(held_out=True) == {"a": 2, "b": 2, "c": 1}
    assert np.array_equal(division.held_out, given)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([";", ";", ";"], "none of the 3 labels names a class"),
        (["a;b", "a", ";"], "1 of 2 classes have fewer than 2 labelled images, namely b"),
        (
            ["a;b", "a", "a", "b;a"],
            "all 3 images that are trained on have the same 1 labels, ",
        ),
        (["a;b", "a;b", ";", "c"], "1 of 3 classes have fewer than 2 labelled images, namely c"),
        (["a", "b", "b", ";", "b", "a;b"], None),
        (["a", "b", "b", ";", "b", "b"], "1 of 2 classes have fewer"),
        (["c", "b", "b", ";", "b", "c"], None),
    ],
)
def test_too_little_to_learn_from(labels: list[str], complaint: str | None) -> None:
    keys = [str(number) for number in range(len(labels))]
    given = [True, *[False] * (len(labels) - 1)]
    if complaint is None:
        assert Division.of(labels, keys, 0.2, given, SETS)
        return
    with pytest.raises(UsageError, match=complaint):
        Division.of(labels, keys, 0.2, given, SETS)


def test_a_single_class_and_its_absence_are_enough() -> None:
    found = Division.of(["a", ";", "a", ";"], list("1234"), 0.2, [True, True, False, False], SETS)
    assert (found.classes, found.targets.shape) == (("a",), (4, 1))
    alone = [True, False, False, False]
    with pytest.raises(UsageError, match="all images of 1 classes are held out, namely a"):
        Division.of(["a", ";", "a", ";"], ["1", "2", "1", "2"], 0.2, alone, SETS)
