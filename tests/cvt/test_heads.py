"""Scores against transformers' pipeline."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers

from cvt import CvtConfig, default_scores, labels_above, to_scores
from cvt.interface.fields import default_labels

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, -3.0]])


def pipeline_of(**fields: Any) -> Any:
    """transformers' pipeline around a tiny CvT."""
    kind: Any = transformers.ImageClassificationPipeline
    config = transformers.CvtConfig(embed_dim=[8, 8, 8], num_heads=[1, 1, 1], **fields)
    model = transformers.CvtForImageClassification(config)
    return kind(model=model, image_processor=transformers.ConvNextImageProcessor())


@pytest.mark.parametrize(
    ("problem_type", "count"),
    [
        (None, 3),
        (None, 1),
        ("single_label_classification", 3),
        ("multi_label_classification", 3),
        ("multi_label_classification", 1),
        ("regression", 3),
        ("regression", 1),
    ],
)
def test_default_scores_are_those_of_transformers_pipeline(
    problem_type: str | None, count: int
) -> None:
    pipeline = pipeline_of(num_labels=count, problem_type=problem_type)
    logits = LOGITS[:, :count]
    expected = {
        entry["label"]: entry["score"]
        for entry in pipeline.postprocess({"logits": logits}, top_k=count)
    }
    labels = default_labels(count)
    config = dataclasses.replace(CvtConfig(), labels=labels, problem_type=problem_type)
    ours = to_scores(logits, default_scores(config))[0]
    assert ours.tolist() == pytest.approx([expected[label] for label in labels])


def test_labels_above_their_thresholds_come_best_first() -> None:
    names = ("cat", "dog", "fox")
    scores = to_scores(LOGITS, "sigmoid")
    assert labels_above(scores, 0.5, names) == [["cat", "fox"], ["cat", "dog"]]
    assert labels_above(scores, [0.9, 0.5, 0.6], names) == [["fox"], ["dog"]]


def test_unfit_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="scores must be one of softmax, sigmoid, logits"):
        to_scores(LOGITS, "argmax")
    with pytest.raises(ValueError, match="thresholds must be 1 or 3 numbers, not 2"):
        labels_above(LOGITS, [0.1, 0.2], ("a", "b", "c"))
