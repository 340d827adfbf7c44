"""The champion on a model's page: whom it beats where, with pictures if there are any."""

import re
from typing import Any

import pyarrow as pa

from pipeline.monitoring.model.contest import differing, render_contest

ROWS = [
    # uri, label, predicted, champion, contest, score
    ("a", "ant", "bee", "ant", "only_champion_right", 0.9),
    ("b", "ant", "bee", "ant", "only_champion_right", 0.5),
    ("c", "ant", "ant", "bee", "only_challenger_right", 0.8),
    ("d", "<i>", "ant", "bee", "neither_right", 0.7),
    ("e", "ant", "ant", "ant", "same", 1.0),
    ("f", "ant", "ant", None, None, 1.0),  # not compared
]
COLUMNS = ("uri", "label", "predicted", "champion", "contest", "score")
PREDICTIONS = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in ROWS])


def champion(**changes: Any) -> dict[str, Any]:
    return {
        "model": "<old>", "images": 5, "left_out": 3, "p_value": 0.25,
        "only_challenger_right": 1, "only_champion_right": 2,
        "unknown_to_champion": [], "only_champion_knows": [], "lost_recall": {},
        "classes": [
            {"class": "bee", "images": 2, "champion": 0.5, "challenger": 0.75},
            {"class": "ant", "images": 3, "champion": 1.0, "challenger": 0.5},
        ],
        **changes,
    }  # fmt: skip


def test_a_few_images_show_every_kind() -> None:
    assert differing(PREDICTIONS, 10) == ["a", "c", "d", "b"]
    assert differing(PREDICTIONS, 2) == ["a", "c"]
    assert differing(PREDICTIONS, 0) == []


def test_pictures_are_sorted_by_who_is_right() -> None:
    page = render_contest(champion(), PREDICTIONS, {"a": "eA==", "d": "eQ=="})
    titles = re.findall(r"<h2>([^<]*)</h2>", page)
    assert titles[2:4] == ["The champion alone is right (1 of 2)", "Neither is right"]
    assert page.count("<figure>") == 2
    assert page.index("eA==") < page.index("eQ==")
    assert "<i>" not in page
    assert "<old>" not in page


def test_without_pictures_there_is_the_table() -> None:
    page = render_contest(champion(), PREDICTIONS, {})
    assert "<figure>" not in page
    assert "Where the two differ (4 of 4 in predictions.parquet)" in page


def test_the_greatest_loss_comes_first_and_is_named() -> None:
    lost: dict[str, Any] = {f"class {n}": {} for n in range(12)} | {"ant": {}}
    page = render_contest(champion(lost_recall=lost), PREDICTIONS, {})
    assert "lost by class 0, class 1," in page
    assert "class 9 and 3 more." in page
    assert re.search(r"<tr class=alarm><td>ant.*-50\.0.*<tr><td>bee.*\+25\.0", page)


def test_classes_that_only_one_knows_are_counted() -> None:
    known = champion(unknown_to_champion=["x", "y"], only_champion_knows=["z"])
    page = render_contest(known, PREDICTIONS, {})
    assert "2 classes this model alone knows; 3 held-out images of them are left out" in page
    assert "1 class the champion alone knows" in page


def test_sets_that_differ_in_a_class_of_one_alone_do_not_differ() -> None:
    row = {"uri": "g", "label": "ant;fly", "predicted": "ant;fly", "champion": "ant"}
    sets = pa.Table.from_pylist([row | {"contest": "same", "score": 1.0}])
    assert differing(sets, 10) == []
    known = champion(unknown_to_champion=["fly"], left_out=0)
    page = render_contest(known, sets, {}, of_sets=True)
    assert "Where the two differ" not in page
    assert "On 5 held-out images, by the classes that both know, this model" in page
    assert "1 class this model alone knows; nobody is right or wrong by them here." in page


def test_no_champion_no_section() -> None:
    assert render_contest(None, PREDICTIONS, {}) == ""
