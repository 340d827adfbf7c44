"""The actor's columns against transformers: labels, scores, embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor
from pipeline.contract.errors import UsageError
from pipeline.contract.schema import LABELS, SOURCE, result_schema
from tests.support.models.inference import (
    PIXELS,
    disturbed,
    load,
    prepare,
    reference,
    results,
    tensor,
)
from tests.support.models.oracle import CLASSES, SIZE, Oracle, difference, save_oracle

pytestmark = pytest.mark.usefixtures("without_ray")


class TestLabels:
    @pytest.mark.parametrize(
        ("scores", "function", "top_k"),
        [
            ("softmax", lambda x: x.softmax(1), 3),
            ("softmax", lambda x: x.softmax(1), 1000),
            ("sigmoid", torch.sigmoid, 7),
            ("logits", lambda x: x, 1),
        ],
    )
    def test_best_first(
        self,
        checkpoint: tuple[Oracle, Path],
        scores: str,
        function: Callable[[Tensor], Tensor],
        top_k: int,
    ) -> None:
        model, folder = checkpoint
        table = results(folder, list(PIXELS), scores=scores, top_k=top_k)
        expected = function(reference(model, PIXELS)["logits"])
        values, ids = expected.sort(dim=1, descending=True)
        count = min(top_k, 7)

        assert table["topk_ids"].to_pylist() == ids[:, :count].tolist()
        assert difference(tensor(table["topk_scores"]), values[:, :count]) < 1e-4
        assert table["topk_labels"].to_pylist() == [
            [CLASSES[i] for i in row] for row in ids[:, :count].tolist()
        ]
        for best, listed in (
            ("label_id", "topk_ids"), ("label", "topk_labels"), ("score", "topk_scores"),
        ):  # fmt: skip
            assert table[best].to_pylist() == [row[0] for row in table[listed].to_pylist()]

    def test_thresholds_by_class(self, checkpoint: tuple[Oracle, Path]) -> None:
        model, folder = checkpoint
        thresholds = {CLASSES[0]: 0.0, CLASSES[1]: 2.0, "*": 0.4}
        table = results(folder, list(PIXELS), scores="sigmoid", thresholds=thresholds)
        scores = reference(model, PIXELS)["logits"].sigmoid()
        limits = torch.tensor([0.0, 2.0] + [0.4] * 5)
        expected = [
            {CLASSES[i] for i in range(7) if row[i] >= limits[i]} for row in scores.tolist()
        ]
        assert [set(labels) for labels in table["labels"].to_pylist()] == expected
        assert any(expected)
        for labels, row in zip(table["labels"].to_pylist(), scores.tolist(), strict=True):
            order = [row[CLASSES.index(label)] for label in labels]
            assert order == sorted(order, reverse=True)

    def test_threshold_that_nothing_reaches_gives_empty_lists(
        self, checkpoint: tuple[Oracle, Path]
    ) -> None:
        table = results(checkpoint[1], [PIXELS[0], None], scores="sigmoid", thresholds=1.5)
        assert table["labels"].to_pylist() == [[], None]

    def test_unknown_class_in_thresholds_is_refused(self, checkpoint: tuple[Oracle, Path]) -> None:
        with pytest.raises(UsageError, match=r"output\.thresholds names unknown classes: dog"):
            load(checkpoint[1], thresholds={"dog": 0.5})


class TestHeads:
    """What the scores are when nobody says so: as transformers' pipelines decide it."""

    @pytest.mark.parametrize(
        ("fields", "function", "has_labels"),
        [
            ({"problem_type": "single_label_classification"}, lambda x: x.softmax(1), False),
            ({"problem_type": "multi_label_classification"}, torch.sigmoid, True),
            ({"problem_type": "regression"}, lambda x: x, False),
            ({"problem_type": "regression", "num_labels": 1}, lambda x: x, False),
            ({"num_labels": 1}, torch.sigmoid, True),
        ],
        ids=["single", "multi", "regression", "one number", "one class"],
    )
    def test_scores(
        self,
        tmp_path: Path,
        fields: dict[str, Any],
        function: Callable[[Tensor], Tensor],
        has_labels: bool,
    ) -> None:
        model = save_oracle(tmp_path, **fields)
        table = results(tmp_path, list(PIXELS), top_k=2)
        expected = function(reference(model, PIXELS)["logits"])
        assert difference(tensor(table["score"]), expected.max(dim=1).values) < 1e-4
        assert ("labels" in table.column_names) == has_labels

    def test_backbone_without_a_head_embeds(
        self, checkpoint: tuple[Oracle, Path], tmp_path: Path
    ) -> None:
        config = CvtConfig(embed_dim=(16, 32, 48), num_heads=(2, 4, 6), depth=(1, 2, 3), labels=())
        torch.manual_seed(0)
        CvtForImageClassification(config).eval().save_pretrained(tmp_path)
        CvtImageProcessor(size=SIZE).save_pretrained(tmp_path)
        table = results(tmp_path, [PIXELS[0], None], top_k=None)
        assert [v is None for v in table["embedding"].to_pylist()] == [False, True]
        with pytest.raises(UsageError, match=r"no classifier.*jobs\.embed"):
            load(tmp_path, top_k=1)


class TestEmbeddings:
    @pytest.mark.parametrize("pooling", ["cls_norm", "cls", "mean"])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_pooling(self, checkpoint: tuple[Oracle, Path], pooling: str, normalize: bool) -> None:
        model, folder = checkpoint
        table = results(folder, list(PIXELS), pooling=pooling, normalize=normalize)
        expected = reference(model, PIXELS)[pooling]
        if normalize:
            expected = expected / expected.norm(dim=1, keepdim=True)
        found = tensor(table["embedding"])
        assert difference(found, expected) < 1e-4
        logits = reference(model, PIXELS)["logits"]  # which no pooling changes
        assert table["label_id"].to_pylist() == logits.argmax(dim=1).tolist()
        embed: Any = CvtForImageClassification.from_pretrained(folder).embed
        values = CvtImageProcessor(size=SIZE).normalize(PIXELS)
        with torch.no_grad():
            ours = embed(values, pooling=pooling, normalize=normalize)
        assert difference(found, ours) < 1e-4

    def test_half_precision_storage(self, checkpoint: tuple[Oracle, Path]) -> None:
        model, folder = checkpoint
        table = results(folder, [*PIXELS, None], embedding_dtype="float16")
        assert table.schema.field("embedding").type == pa.list_(pa.float16(), 48)
        found = tensor(table["embedding"].slice(0, 6))
        expected = reference(model, PIXELS)["cls_norm"]
        assert 0 < difference(found, expected) < 2e-3

    def test_number_too_large_for_half_precision_is_a_failed_row(
        self, checkpoint: tuple[Oracle, Path]
    ) -> None:
        table = disturbed(checkpoint[1], 1e5, embedding_dtype="float16")
        assert table["error_code"].to_pylist() == [None, "non_finite_output", None]

    @pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 0.15), ("float16", 0.03)])
    def test_arithmetic_of_lower_precision(
        self, checkpoint: tuple[Oracle, Path], dtype: str, limit: float
    ) -> None:
        model, folder = checkpoint
        table = results(folder, list(PIXELS), dtype=dtype)
        expected = reference(model, PIXELS)["cls_norm"]
        found = tensor(table["embedding"])
        error = (found - expected).norm(dim=1) / expected.norm(dim=1)
        assert 0 < error.max().item() < limit


def test_columns_are_the_contract(checkpoint: tuple[Oracle, Path]) -> None:
    expected = {
        "uri": pa.string(), "status": pa.string(), "error_code": pa.string(),
        "error_message": pa.string(), "width": pa.int32(), "height": pa.int32(),
        "size_bytes": pa.int64(), "sha256": pa.string(), "source_version": pa.string(),
        "label_id": pa.int32(), "label": pa.string(), "score": pa.float32(),
        "topk_ids": pa.list_(pa.int32()), "topk_labels": pa.list_(pa.string()),
        "topk_scores": pa.list_(pa.float32()), "embedding": pa.list_(pa.float32(), 48),
    }  # fmt: skip
    schema = prepare(checkpoint[1]).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == expected
    assert not schema.field("uri").nullable
    names = list(expected)
    assert prepare(checkpoint[1], embeddings=False).schema.names == names[:-1]
    assert prepare(checkpoint[1], top_k=None).schema.names == [*names[:9], "embedding"]
    assert LABELS.name in prepare(checkpoint[1], thresholds=0.5).schema.names
    everything = result_schema(labels=False, thresholds=False, embedding=None)
    assert everything.names == SOURCE.names == names[:9]
