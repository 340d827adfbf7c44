"""The actor: batches with and without gaps, runtimes, and the self-check before the first one."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch

from cvt import CvtForImageClassification, CvtImageProcessor
from pipeline.contract.errors import UsageError
from pipeline.contract.schema import TOP_K
from pipeline.model.families.cvt import PackedCvt
from pipeline.stages.infer import devices
from pipeline.stages.infer.settings import InferSettings
from tests.support.models.inference import (
    PIXELS,
    batch,
    disturbed,
    load,
    predictor,
    prepare,
    reference,
    results,
    tensor,
)
from tests.support.models.oracle import SIZE, Oracle, difference, save_oracle

pytestmark = pytest.mark.usefixtures("without_ray")


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
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The self-check of two images compiles for batches of four, not for its own two."""
        openvino = pytest.importorskip("openvino")
        compiled = []
        compile_model = openvino.compile_model

        def count(*arguments: Any) -> Any:
            compiled.append(compile_model(*arguments))
            return compiled[-1]

        monkeypatch.setattr(openvino, "compile_model", count)
        model = save_oracle(tmp_path, depth=(1, 1, 1))  # seconds for each block
        loaded = prepare(tmp_path, runtime="openvino", pooling="mean", scores="logits")
        packed = loaded.pack()
        assert not cast(PackedCvt, packed.network).arrays  # or the weights would travel twice
        actor = predictor(loaded, packed)
        tables = [actor(batch(list(images))) for images in (PIXELS[:4], PIXELS[4:])]
        assert len(compiled) == 1
        table, expected = pa.concat_tables(tables), reference(model, PIXELS)
        assert difference(tensor(table["embedding"]), expected["mean"]) < 1e-4
        assert difference(tensor(table["score"]), expected["logits"].max(dim=1).values) < 1e-4

    def test_openvino_is_for_cpus(self, checkpoint: tuple[Oracle, Path]) -> None:
        model = replace(prepare(checkpoint[1]), runtime="openvino")
        with pytest.raises(
            UsageError, match=r"openvino runs only on CPUs; drop it or set compute\.num_gpus to 0"
        ):
            InferSettings.of(model, gpus=1, threads=1, batch_size=64)

    def test_tf32_is_for_gpus(self, checkpoint: tuple[Oracle, Path]) -> None:
        """Should the GPUs be gone that it was chosen on."""
        with pytest.raises(
            UsageError, match=r"model\.dtype tf32 needs GPUs, and this run has none"
        ):
            predictor(prepare(checkpoint[1], dtype="tf32"))

    @pytest.mark.parametrize(("dtype", "tf32"), [("float32", False), ("tf32", True)])
    def test_a_gpu_rounds_products_for_tf32_alone(
        self,
        checkpoint: tuple[Oracle, Path],
        monkeypatch: pytest.MonkeyPatch,
        dtype: str,
        tf32: bool,
    ) -> None:
        """Before it places the network, which needs a GPU."""
        told = []

        def use_only_share(gpus: float, *, tf32: bool) -> None:
            told.append((gpus, tf32))
            raise NotImplementedError

        monkeypatch.setattr(devices, "use_only_share", use_only_share)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
        model = prepare(checkpoint[1], dtype=dtype)
        settings = InferSettings.of(model, gpus=0.5, batch_size=4)
        with pytest.raises(NotImplementedError):
            devices.device(model.pack(), settings)
        assert told == [(0.5, tf32)]

    def test_openvino_that_is_not_installed(
        self, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.model.loaded.find_spec", lambda name: None)
        with pytest.raises(UsageError, match="needs packages: pip install openvino"):
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
        bundle = model.pack()
        network = cast(PackedCvt, bundle.network)
        arrays = network.arrays | {name: network.arrays[name] * 1.1}
        spoilt = replace(bundle, network=replace(network, arrays=arrays))
        with pytest.raises(RuntimeError, match="self-check failed"):
            predictor(model, spoilt)

    def test_checkpoint_with_numbers_that_are_none_is_refused(
        self, checkpoint: tuple[Oracle, Path], tmp_path: Path
    ) -> None:
        model = CvtForImageClassification.from_pretrained(checkpoint[1])
        with torch.no_grad():
            model.norm.weight[0] = float("nan")
        model.save_pretrained(tmp_path)
        CvtImageProcessor(size=SIZE).save_pretrained(tmp_path)
        with pytest.raises(UsageError, match=r"layernorm\.weight holds NaN or infinity"):
            load(tmp_path)
