"""A new head on stored embeddings, against torch's Linear, row by row."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Counts
from pipeline.runs.relabel.job import relabel
from pipeline.runs.relabel.linear_head import Head
from pipeline.storage.store import Store
from tests.support.models.linear_heads import HEAD_CLASSES, linear, save_head
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.outputs.relabelling import (
    CLASSES,
    close_embedded,
    identity,
    rows,
    softmax,
    spec,
    vectors,
)


class TestHead:
    @pytest.mark.parametrize("form", ["npz", "directory", "pth"])
    def test_against_torch(self, source: Store, output: Store, tmp_path: Path, form: str) -> None:
        layer = linear()
        head = save_head(layer, tmp_path / "head", form)
        embeddings = close_embedded(source)
        result = relabel(spec(source, output, head=str(head), top_k=3))
        with torch.inference_mode():
            top = layer(torch.from_numpy(embeddings)).softmax(dim=1).topk(3)
        after = rows(output)
        for number in range(90):
            row = after[f"s3://bucket/image{number:06d}.jpg"]
            assert row["topk_ids"] == top.indices[number].tolist()
            assert row["topk_labels"] == [HEAD_CLASSES[i] for i in top.indices[number]]
            assert row["topk_scores"] == pytest.approx(top.values[number].tolist(), rel=1e-5)
            assert row["embedding"] == pytest.approx(embeddings[number].tolist())
            assert "labels" not in row
        assert result.counts == Counts(listed=92, ok=90, failed=2, skipped=0)
        assert result.manifest.plan["unsure"] == {"label": 0, "labels": 0}

    def test_sigmoid_head_of_a_multi_label_checkpoint(
        self, source: Store, output: Store, tmp_path: Path
    ) -> None:
        layer = linear()
        head = save_head(layer, tmp_path / "head", "pth", problem_type="multi_label_classification")
        embeddings = close_embedded(source)
        relabel(spec(source, output, head=str(head)))
        with torch.inference_mode():
            scores = layer(torch.from_numpy(embeddings)).sigmoid()
        after = rows(output)
        for number in range(90):
            row = after[f"s3://bucket/image{number:06d}.jpg"]
            reached = {HEAD_CLASSES[i] for i in torch.nonzero(scores[number] >= 0.5).flatten()}
            assert set(row["labels"]) == reached
            assert row["score"] == pytest.approx(float(scores[number].max()), rel=1e-5)

    def test_map_applies_to_all_scores_of_a_head(
        self, source: Store, output: Store, tmp_path: Path
    ) -> None:
        layer = linear()
        head = save_head(layer, tmp_path / "head", "npz")
        embeddings = close_embedded(source)
        renamed = {"new 1": "x", "new 3": "x", "new 4": "new 0"}
        relabel(spec(source, output, head=str(head), label_map=renamed, top_k=1))
        with torch.inference_mode():
            p = layer(torch.from_numpy(embeddings)).softmax(dim=1).double().numpy()
        truth = {"new 0": p[:, 0] + p[:, 4], "x": p[:, 1] + p[:, 3], "new 2": p[:, 2]}
        after = rows(output)
        for number in range(90):
            row = after[f"s3://bucket/image{number:06d}.jpg"]
            best = max(truth, key=lambda name: truth[name][number])
            assert row["topk_labels"] == [row["label"]] == [best]
            assert row["score"] == pytest.approx(truth[best][number], rel=1e-5)

    def test_float16_embeddings_without_labels(
        self, source: Store, output: Store, tmp_path: Path
    ) -> None:
        layer = linear()
        embeddings = vectors(0, 40).astype(np.float16)
        table = rows_of(softmax(0, 40), CLASSES, embeddings=embeddings.astype(np.float32))
        halves = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), 12)
        names = [n for n in table.column_names if "label" not in n and not n.startswith("topk")]
        table = table.select([n for n in names if n not in ("score", "embedding")])
        table = table.append_column("embedding", halves)
        nameless = identity(scores=None, top_k=None, embedding="a fixed list of 12 halves")
        close_run(source, table, CLASSES, identity=nameless)
        relabel(spec(source, output, head=str(save_head(layer, tmp_path / "head", "npz"))))
        with torch.inference_mode():
            best = layer(torch.from_numpy(embeddings.astype(np.float32))).argmax(dim=1).tolist()
        after = [row for _, row in sorted(rows(output).items())]
        assert [row["label_id"] for row in after] == best
        assert after[0]["embedding"] == embeddings[0].tolist()


class TestHeadFile:
    def test_forms_agree(self, tmp_path: Path) -> None:
        heads = [
            Head.load(str(save_head(linear(), tmp_path / form, form)))
            for form in ("npz", "directory", "pth")
        ]
        assert len({head.fingerprint for head in heads}) == 1
        other = Head.load(str(save_head(linear(1), tmp_path / "other", "npz")))
        assert other.fingerprint != heads[0].fingerprint

    @pytest.mark.parametrize(
        ("arrays", "complaint"),
        [
            ({"weight": np.zeros((2, 3)), "bias": np.zeros(2)}, "labels"),
            ({"labels": ["a"]}, "no tensor named weight"),
            ({"weight": np.zeros((2, 3)), "labels": ["a"]}, "is inconsistent"),
            ({"weight": np.zeros((2, 3)), "labels": ["a", "a"]}, "two classes with the same name"),
            ({"weight": np.full((1, 3), np.nan), "labels": ["a"]}, "NaN"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, arrays: dict[str, Any], complaint: str, tmp_path: Path
    ) -> None:
        np.savez(tmp_path / "head.npz", **arrays)
        with pytest.raises(UsageError, match=complaint):
            Head.load(str(tmp_path / "head.npz"))

    @pytest.mark.parametrize("name", ["none.npz", "none.pth", "text.npz", "text.safetensors"])
    def test_a_file_that_is_none(self, name: str, tmp_path: Path) -> None:
        if name.startswith("text"):
            (tmp_path / name).write_text("hello")
        with pytest.raises(UsageError, match=r"cannot read relabel\.head"):
            Head.load(str(tmp_path / name))
