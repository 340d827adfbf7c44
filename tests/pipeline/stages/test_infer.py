"""The actor against transformers: scores and embeddings of batches with and without gaps."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor, CvtOutput
from pipeline.contract.errors import UsageError
from pipeline.contract.schema import DECODED, INTERNAL, LABELS, SOURCE, TOP_K, result_schema
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.loaded import LoadedModel
from pipeline.stages.infer import InferSettings, Predictor
from tests.support.models.oracle import SMALL, Oracle, difference, oracle

SIZE = 32
CLASSES = [f"class {n} ü" for n in range(7)]


def save(folder: Path, **fields: Any) -> Oracle:
    """A seeded checkpoint of transformers with preprocessing for images of 32 x 32."""
    options = {"id2label": dict(enumerate(CLASSES)), **SMALL, **fields}
    if "num_labels" in fields:
        del options["id2label"]
    model = oracle(**options)
    model.save_pretrained(folder)
    CvtImageProcessor(size=SIZE).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Oracle, Path]:
    folder = tmp_path_factory.mktemp("checkpoint")
    return save(folder), folder


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray's object store would hand out is handed over directly."""
    monkeypatch.setattr("pipeline.stages.infer.ray.get", lambda reference: reference)


def load(
    source: Path, *, dtype: Any = "float32", runtime: Any = "torch", **output: Any
) -> LoadedModel:
    values: dict[str, Any] = {"uri": "out", "top_k": 3, "embeddings": True, **output}
    return LoadedModel.load(
        RunSpec(
            inputs=InputSpec(uris=("in",)),
            model=ModelSpec(source=str(source), dtype=dtype, runtime=runtime),
            output=OutputSpec(**values),
        )
    )


@cache
def loaded(source: Path, pooling: Any, **arithmetic: str) -> LoadedModel:
    return load(source, pooling=pooling, top_k=None, **arithmetic)


def prepare(
    source: Path, *, dtype: str = "float32", runtime: str = "torch", **output: Any
) -> LoadedModel:
    """As `load`, but a checkpoint is read only once."""
    values: dict[str, Any] = {"uri": "out", "top_k": 3, "embeddings": True, **output}
    model = loaded(source, values.get("pooling", "cls_norm"), dtype=dtype, runtime=runtime)
    return replace(model, output=OutputSpec(**values))


def predictor(model: LoadedModel) -> Predictor:
    settings = InferSettings.of(model, on_gpu=False, threads=1, batch_size=4)
    return Predictor(model.bundle, settings)  # type: ignore[arg-type]


PIXELS = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)


def batch(images: list[npt.NDArray[np.uint8] | None]) -> pa.Table:
    """DECODED rows; None is an image that failed before."""
    rows: list[dict[str, Any]] = []
    for number, pixels in enumerate(images):
        row: dict[str, Any] = {"uri": f"{number}.jpg", "status": "ok", "_pixels": pixels}
        if pixels is None:
            row |= {"status": "failed", "error_code": "corrupt", "error_message": "why"}
        else:
            row |= {"_pixels": pixels.tobytes(), "width": 3, "sha256": "s"}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=DECODED)


def results(source: Path, images: list[npt.NDArray[np.uint8] | None], **options: Any) -> pa.Table:
    """What the actor makes of the images, checked against the schema that is announced."""
    model = prepare(source, **options)
    table = predictor(model)(batch(images))
    announced = pa.unify_schemas([model.schema, INTERNAL])
    assert {field.name: field.type for field in table.schema} == {
        field.name: field.type for field in announced
    }
    assert [name for name in table.column_names if not name.startswith("_")] == model.schema.names
    assert table["uri"].to_pylist() == [f"{number}.jpg" for number in range(len(images))]
    return table


@torch.no_grad()
def reference(model: Oracle, images: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
    """transformers' own outputs."""
    values = CvtImageProcessor(size=SIZE).normalize(images)
    out = model.cvt(values, output_hidden_states=True)
    return {
        "logits": model(values).logits,
        "cls_norm": model.layernorm(out.cls_token_value).mean(dim=1),
        "cls": out.cls_token_value.squeeze(1),
        "mean": out.hidden_states[1].mean(dim=(2, 3)),
    }


def tensor(column: pa.ChunkedArray) -> Tensor:
    return torch.tensor(column.to_pylist(), dtype=torch.float32)


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
        with pytest.raises(UsageError, match="--thresholds names no class of the model: dog"):
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
        model = save(tmp_path, **fields)
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


def disturbed(folder: Path, value: float, **options: Any) -> pa.Table:
    """Three images, of which the second one's embedding has ``value`` in it."""
    model = prepare(folder, **options)
    actor = predictor(model)

    def disturb(_: Any, __: Any, out: CvtOutput) -> CvtOutput:
        embedding = out.embedding.clone()
        embedding[1, 3] = value
        return CvtOutput(out.logits, embedding)

    actor.network.register_forward_hook(disturb)
    return actor(batch(list(PIXELS[:3])))


class TestGaps:
    def test_failed_rows_keep_their_place_and_reason(self, checkpoint: tuple[Oracle, Path]) -> None:
        model, folder = checkpoint
        table = results(folder, [None, PIXELS[0], None, PIXELS[1], None], scores="logits")
        ids = reference(model, PIXELS[:2])["logits"].argmax(dim=1).tolist()
        assert table["label_id"].to_pylist() == [None, ids[0], None, ids[1], None]
        assert table["error_code"].to_pylist() == ["corrupt", None, "corrupt", None, "corrupt"]
        for name in (*(field.name for field in TOP_K), "embedding"):
            assert [v is None for v in table[name].to_pylist()] == [True, False] * 2 + [True]
        expected = reference(model, PIXELS[:2])["cls_norm"]
        assert difference(tensor(table["embedding"].drop_null()), expected) < 1e-4

    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_nothing_but_failed_rows(self, checkpoint: tuple[Oracle, Path], count: int) -> None:
        table = results(checkpoint[1], [None] * count, thresholds=0.5)
        assert len(table) == count
        assert table["embedding"].null_count == table["labels"].null_count == count

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_none(self, checkpoint: tuple[Oracle, Path], value: float) -> None:
        table = disturbed(checkpoint[1], value)
        assert table["status"].to_pylist() == ["ok", "failed", "ok"]
        assert table["error_code"].to_pylist() == [None, "non_finite_output", None]
        assert table["error_message"][1].as_py()
        assert table["width"].to_pylist() == [3] * 3
        for field in TOP_K:
            assert [v is None for v in table[field.name].to_pylist()] == [False, True, False]
        assert table["embedding"].null_count == 1

    def test_slices_of_a_larger_block(self, checkpoint: tuple[Oracle, Path]) -> None:
        """Ray hands over slices, whose buffers begin before them, and concatenations."""
        folder = checkpoint[1]
        actor = predictor(prepare(folder))
        whole = batch([PIXELS[0], None, *PIXELS[1:], None])
        expected = actor(whole)
        slices = [actor(whole.slice(start, 3)) for start in range(0, 8, 3)]
        joined = actor(pa.concat_tables([whole.slice(0, 5), whole.slice(5)]))
        for table in (pa.concat_tables(slices), joined):
            assert table["label_id"].to_pylist() == expected["label_id"].to_pylist()
            found, wanted = (tensor(t["embedding"].drop_null()) for t in (table, expected))
            assert difference(found, wanted) < 1e-5

    def test_batch_of_another_size_gives_the_same_numbers(
        self, checkpoint: tuple[Oracle, Path]
    ) -> None:
        actor = predictor(prepare(checkpoint[1]))
        whole = batch(list(PIXELS))
        one_by_one = pa.concat_tables([actor(whole.slice(n, 1)) for n in range(len(PIXELS))])
        assert difference(tensor(one_by_one["embedding"]), tensor(actor(whole)["embedding"])) < 1e-5

    def test_two_threads_give_what_one_gives(self, checkpoint: tuple[Oracle, Path]) -> None:
        """As an actor on a GPU is called."""
        actor = predictor(prepare(checkpoint[1]))
        batches = [batch(list(np.roll(PIXELS, n, axis=0))) for n in range(6)]
        with ThreadPoolExecutor(2) as threads:
            together = list(threads.map(actor, batches))
        assert together == [actor(one) for one in batches]


class TestRuntime:
    def test_openvino_gives_the_same_numbers_and_compiles_once(
        self, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The self-check of two images compiles for batches of four, not for its own two."""
        openvino = pytest.importorskip("openvino")
        compiled = []
        compile_model = openvino.compile_model

        def count(*arguments: Any) -> Any:
            compiled.append(compile_model(*arguments))
            return compiled[-1]

        monkeypatch.setattr(openvino, "compile_model", count)
        model, folder = checkpoint
        loaded = prepare(folder, runtime="openvino", pooling="mean", scores="logits")
        packed = loaded.pack()
        assert not packed.arrays  # or the weights would travel twice
        actor = predictor(replace(loaded, bundle=packed))
        tables = [actor(batch(list(images))) for images in (PIXELS[:4], PIXELS[4:])]
        assert len(compiled) == 1
        table, expected = pa.concat_tables(tables), reference(model, PIXELS)
        assert difference(tensor(table["embedding"]), expected["mean"]) < 1e-4
        assert difference(tensor(table["score"]), expected["logits"].max(dim=1).values) < 1e-4

    def test_openvino_is_for_cpus(self, checkpoint: tuple[Oracle, Path]) -> None:
        model = replace(prepare(checkpoint[1]), runtime="openvino")
        with pytest.raises(UsageError, match="openvino computes on CPUs; add --num-gpus 0"):
            InferSettings.of(model, on_gpu=True, threads=1, batch_size=64)

    def test_openvino_that_is_not_installed(
        self, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.model.loaded.find_spec", lambda name: None)
        with pytest.raises(UsageError, match=r"needs: pip install 'cvt-batch\[openvino\]'"):
            load(checkpoint[1], runtime="openvino")

    def test_rows_of_both_runtimes_may_stand_in_one_table(
        self, checkpoint: tuple[Oracle, Path]
    ) -> None:
        pytest.importorskip("openvino")
        torchs, openvinos = (
            prepare(checkpoint[1], runtime=runtime).identity for runtime in ("torch", "openvino")
        )
        assert torchs == openvinos
        assert torchs != prepare(checkpoint[1], dtype="bfloat16").identity


class TestSelfCheck:
    @pytest.mark.parametrize("name", ["norm.weight", "head.weight", "backbone.stages.2.cls_token"])
    @pytest.mark.parametrize("pooling", ["cls_norm", "mean"])
    def test_actor_with_other_weights_does_not_start(
        self, checkpoint: tuple[Oracle, Path], name: str, pooling: str
    ) -> None:
        model = prepare(checkpoint[1], pooling=pooling)
        arrays = model.bundle.arrays | {name: model.bundle.arrays[name] * 1.1}
        spoilt = replace(model.bundle, arrays=arrays)
        with pytest.raises(RuntimeError, match="self-check failed"):
            predictor(replace(model, bundle=spoilt))

    def test_checkpoint_with_numbers_that_are_none_is_refused(
        self, checkpoint: tuple[Oracle, Path], tmp_path: Path
    ) -> None:
        model = CvtForImageClassification.from_pretrained(checkpoint[1])
        with torch.no_grad():
            model.norm.weight[0] = float("nan")
        model.save_pretrained(tmp_path)
        CvtImageProcessor(size=SIZE).save_pretrained(tmp_path)
        with pytest.raises(UsageError, match=r"NaN or infinity, as in norm\.weight"):
            load(tmp_path)


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
