"""The held-out part: the same whatever else is there, and never apart from its kin."""

import numpy as np
import pytest

from pipeline.contract.errors import UsageError
from pipeline.runs.finetune.labelled.split import FOLDS, Division, folds, held_out, kinships

KEYS = [f"content {number}" for number in range(2000)]


def test_new_images_move_no_other() -> None:
    alone = held_out(KEYS, 0.2)
    among_others = held_out([*KEYS[1000:], *(f"new {n}" for n in range(500)), *KEYS[:1000]], 0.2)
    assert (among_others[:1000] == alone[1000:]).all()
    assert (among_others[1500:] == alone[:1000]).all()


def test_about_the_share_is_held_out_and_a_larger_one_adds_to_it() -> None:
    small, large = held_out(KEYS, 0.1), held_out(KEYS, 0.3)
    assert 0.08 < small.mean() < 0.12
    assert 0.27 < large.mean() < 0.33
    assert (small <= large).all()


def test_equal_contents_and_groups_stay_together() -> None:
    contents = [f"content {number // 2}" for number in range(400)]
    sides = held_out(kinships(contents, None), 0.5)
    assert (sides[::2] == sides[1::2]).all()
    groups = [f"patient {number // 10}" for number in range(400)]
    sides = held_out(kinships([f"{n}" for n in range(400)], groups), 0.5).reshape(-1, 10)
    assert (sides == sides[:, :1]).all()
    assert 0 < sides[:, 0].sum() < 40


def test_groups_that_share_a_content_are_one() -> None:
    """b and d through the content 2, d and a through 3; c stands alone, and so does what has no
    group, unless its content is known."""
    contents = ["1", "2", "2", "3", "3", "4", "5", "1"]
    groups = ["b", "b", "d", "d", "a", "c", None, None]
    keys = kinships(contents, groups)
    assert len({*keys[:5], keys[7]}) == 1
    assert len({keys[0], keys[5], keys[6]}) == 3


def test_folds_are_of_equal_size_and_keep_kin_together() -> None:
    keys = [f"content {number // 2}" for number in range(100)]
    found = folds(keys)
    assert (found[::2] == found[1::2]).all()
    assert np.bincount(found).tolist() == [100 // FOLDS] * FOLDS
    assert sorted(set(folds(["a", "b"]).tolist())) == [0, 1]


def test_numbers_of_classes_follow_their_names() -> None:
    labels = ["b", "a", "c"] * 50
    division = Division.of(labels, [str(n) for n in range(150)], 0.2)
    assert division.classes == ("a", "b", "c")
    assert division.targets[:3].tolist() == [1, 0, 2]
    total = division.counts(held_out=True)
    assert sum(total.values()) == division.held_out.sum()
    assert {n: total[n] + division.counts(held_out=False)[n] for n in total} == dict.fromkeys(
        "abc", 50
    )


def test_what_a_file_names_is_held_out_with_its_copies_and_nothing_else() -> None:
    labels, contents = ["a", "b"] * 20, [str(number // 4) for number in range(40)]
    given = [number in (0, 5, 39) for number in range(40)]
    division = Division.of(labels, contents, 0.9, given)
    assert np.flatnonzero(division.held_out).tolist() == [*range(8), *range(36, 40)]
    with pytest.raises(UsageError, match=r"none of the 40 .*; label more images, or name some in"):
        Division.of(labels, contents, 0.9, [False] * 40)
    alone = [label == "a" for label in labels]
    with pytest.raises(UsageError, match="namely a; label more images of them, or take them out"):
        Division.of(labels, [str(number) for number in range(40)], 0.9, alone)


def test_a_class_that_is_held_out_whole_is_refused() -> None:
    keys = [key for key in KEYS if held_out([key], 0.2)[0]][:2]
    others = [key for key in KEYS if not held_out([key], 0.2)[0]][:4]
    labels = ["rare", "rare", "a", "a", "b", "b"]
    with pytest.raises(UsageError, match="all images of 1 classes are held out, namely rare"):
        Division.of(labels, [*keys, *others], 0.2)
    with pytest.raises(UsageError, match="none of the 4 labelled images is held out"):
        Division.of(labels[2:], others, 0.2)
