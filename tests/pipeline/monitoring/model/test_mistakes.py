"""Mistakes and labels in doubt on a model's page, with pictures of those that there are."""

import re

import pyarrow as pa

from pipeline.monitoring.model.mistakes import mistakes, render_issues, render_mistakes

ROWS = [
    # uri, split, label, predicted, score, loss
    ("s3://b/right.jpg", "validation", "ant", "ant", 0.9, 0.1),
    ("s3://b/unsure.jpg", "validation", "ant", "bee", 0.5, 0.9),
    ("s3://b/sure.tar#x/<1>.jpg", "validation", "<i>", "bee", 0.99, 5.0),
    ("s3://b/learned.jpg", "train", "ant", "bee", 0.99, 7.0),
]
COLUMNS = ("uri", "split", "label", "predicted", "score", "loss")
PREDICTIONS = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in ROWS])


def captions(page: str) -> list[str]:
    return re.findall("<figcaption>(.*?)</figcaption>", page)


def test_the_largest_loss_comes_first() -> None:
    assert mistakes(PREDICTIONS)["uri"].to_pylist() == [ROWS[2][0], ROWS[1][0]]
    page = render_mistakes(PREDICTIONS, {row[0]: "eA==" for row in ROWS})
    assert captions(page) == [
        "label <b>&lt;i&gt;</b><br>predicted: bee (99%)<br>&lt;1&gt;.jpg",
        "label <b>ant</b><br>predicted: bee (50%)<br>unsure.jpg",
    ]
    assert "The surest mistakes (2 of 2 in predictions.parquet)" in page


def test_the_scores_of_all_classes_are_not_carried_along() -> None:
    scores = pa.array([[0.5] * 100] * len(ROWS), pa.list_(pa.float32()))
    assert mistakes(PREDICTIONS.append_column("scores", scores)) == mistakes(PREDICTIONS)


def test_pictures_that_are_missing_are_named_in_the_table() -> None:
    page = render_mistakes(PREDICTIONS, {ROWS[1][0]: "eA=="})
    assert "as the model sees them (1 of 2)" in page
    assert len(captions(page)) == 1
    assert "sure.tar#x/&lt;1&gt;.jpg" in page
    assert "<figure>" not in render_mistakes(PREDICTIONS, {})


def test_labels_in_doubt() -> None:
    row = {"uri": "/a/b.jpg", "label": "ant", "suggested": "bee", "score": 0.1}
    issues = pa.Table.from_pylist([row | {"suggested_score": 0.8}])
    page = render_issues(issues, {"/a/b.jpg": "eA=="})
    assert captions(page) == ["label <b>ant</b><br>probably bee (80%)<br>b.jpg"]
    assert render_issues(issues.slice(0, 0), {}) == ""
