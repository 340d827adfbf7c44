"""The README of a fine-tuned model, with the header that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.monitoring.model.metrics import of_sets

_NO_MARKUP = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#"} | {"\n": " "})


def render_card(training: Mapping[str, Any], metrics: Mapping[str, Any], activation: str) -> str:
    """The card.

    Args:
        training: the content of training.json.
        metrics: that of metrics.json.
        activation: of the network's layers, which transformers does not read.
    """
    header = {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "tags": ["cvt", "image-classification"],
        "metrics": ["accuracy", "f1"],
    }
    images, champion = metrics["images"], metrics["champion"]
    lines = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# Model {training['run_id']}",
        f"A CvT whose {_TRAINED[training['trained']]} trained on {images['train']:,} labelled "
        f"images of {len(metrics['classes']):,} classes. It started as "
        f"{_text(training['parent'])} (weights {training['parent_weights_sha256'][:16]})"
        f"{_REST[training['trained']]}.",
        f"On {images['validation']:,} images that were held out: accuracy "
        f"{metrics['accuracy']:.1%}, macro F1 {metrics['macro_f1']:.3f}, calibration error "
        f"{metrics['calibration_error']:.3f}.",
        *([_of_sets(metrics)] if of_sets(metrics) else []),
        *([_against(champion)] if champion else []),
        *([_balanced(metrics)] if training["spec"].get("class_weights") == "auto" else []),
        _table(metrics["classes"]),
        "training.json says what it was made of, metrics.json how good it is, predictions.parquet "
        "what it says of each labelled image, label_issues.parquet which labels are in doubt.",
        *([_QUICK_GELU] if activation == "quick_gelu" else []),
    ]
    return "\n\n".join(lines) + "\n"


_TRAINED = {
    "head": "classifier was",
    "last": "last stage and classifier were",
    "all": "network was",
}
_REST = {
    "head": ", whose backbone it has, unchanged",
    "last": ", whose other stages it has, unchanged",
    "all": "",
}
_QUICK_GELU = (
    "config.json records the activation quick_gelu. transformers ignores it and computes the exact "
    "GELU, and with it other numbers than those above; cvt-batch computes what was trained."
)


def _balanced(metrics: Mapping[str, Any]) -> str:
    what = "all classes counted alike, however many images they have"
    if of_sets(metrics):
        what = "presence and absence of each class counted half, however many images have it"
    return f"In training {what} (class weights: auto)."


def _of_sets(metrics: Mapping[str, Any]) -> str:
    return (
        "An image may have several labels, or none (problem type multi_label_classification): it "
        f"has those whose sigmoid is at least {metrics['threshold']}. The accuracy is the share of "
        f"images with all labels right. Micro F1 is {metrics['micro_f1']:.3f}, the mean of the "
        f"classes' average precision {metrics['mean_average_precision']:.3f}."
    )


def _against(champion: Mapping[str, Any]) -> str:
    return (
        f"{_text(champion['model'])} is right about {champion['accuracy']:.1%} of "
        f"{champion['images']:,} of them, this model about {champion['challengers_accuracy']:.1%} "
        f"(McNemar's exact test: p = {champion['p_value']:.3g})."
    )


def _table(classes: list[Mapping[str, Any]]) -> str:
    rows = (
        f"| {_text(one['class'])} | {one['precision']:.1%} | {one['recall']:.1%} | "
        f"{one['f1']:.3f} | {one['support']} | {one['train']} |"
        for one in classes
    )
    head = "| class | precision | recall | F1 | held out | trained on |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def _text(name: str) -> str:
    return name.translate(_NO_MARKUP)
