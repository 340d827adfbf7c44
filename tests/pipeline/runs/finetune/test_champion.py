"""Who is right, image by image, where the two do not know the same classes."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np

from pipeline.runs.finetune.champion import Champion, Contest
from pipeline.runs.finetune.labelled.kinds import ONE_CLASS, Kind, SetOfClasses

NEW = ("a", "b", "c")
OLD = ("a", "b", "z")
SETS = SetOfClasses(";")


def met(kind: Kind, rows: list[tuple[str, str, str]]) -> Contest:
    """Of images with a label, what the new model says, and what the champion does; the first is not
    held out."""
    labels, ours, theirs = zip(*rows, strict=True)
    fitted: Any = SimpleNamespace(
        division=SimpleNamespace(
            classes=NEW, targets=kind.targets(labels, NEW), held_out=np.arange(len(rows)) > 0
        ),
        samples=SimpleNamespace(uris=[str(row) for row in range(len(rows))]),
        said=kind.present(kind.targets(ours, NEW), len(NEW)),
    )
    answers = {str(row): kind.names(said) for row, said in enumerate(theirs)}
    return Champion("old", Mock(classes=OLD), True, kind).meet(fitted, answers)


def test_of_sets_the_classes_that_both_know_count() -> None:
    found = met(
        SETS,
        [
            ("a", "a", "b"),
            ("a;c", "a;c", "a"),
            ("a", "a", "a;z"),
            ("a", "b;c", "b"),
            ("c", ";", "z"),
            ("a", "a;c", "b"),
            ("b", "a", "b;z"),
            ("a;b", "a", "b"),
        ],
    )
    assert found.outcomes == [
        None, "same", "same", "same", "same",
        "only_challenger_right", "only_champion_right", "neither_right",
    ]  # fmt: skip
    duel = found.duel
    assert (duel.rows, duel.both, duel.only_first, duel.only_second) == (7, 3, 1, 1)


def test_of_one_class_the_whole_answer_counts() -> None:
    """Two classes that only one of the two knows are not the same, though no other is named."""
    found = met(
        ONE_CLASS,
        [
            ("a", "a", "b"),
            ("a", "c", "z"),
            ("a", "b", "b"),
            ("a", "c", "a"),
            ("b", "b", "z"),
            ("c", "c", "z"),
        ],
    )
    assert found.outcomes == [
        None, "neither_right", "same", "only_champion_right", "only_challenger_right", None,
    ]  # fmt: skip
    assert (found.duel.rows, found.left_out) == (4, 1)
