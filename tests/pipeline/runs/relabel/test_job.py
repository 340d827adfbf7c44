"""Relabelling from what is stored: against torch's Linear and against brute force, row by row."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import safetensors.torch
import torch

from pipeline.contract.errors import RunError, UsageError
from pipeline.output.history import History
from pipeline.output.open_run import OpenRun
from pipeline.output.publish import is_closed
from pipeline.runs.relabel.job import RelabelSpec, relabel
from pipeline.runs.relabel.linear_head import Head
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.result import RunResult
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of

CLASSES = ["cat", "lynx", "dog", "wolf", "fox", "car"]
MAP = {"lynx": "cat", "wolf": "dog", "car": "vehicle"}
NEW = ["cat", "dog", "fox", "vehicle"]
Array = npt.NDArray[np.float32]


def softmax(seed: int, rows: int, classes: int = len(CLASSES)) -> Array:
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 2
    return logits.softmax(dim=1).numpy()


def vectors(seed: int, rows: int, width: int = 12) -> Array:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).numpy()


def identity(**changes: Any) -> dict[str, Any]:
    return IDENTITY | changes


def spec(source: Store, output: Store, **what: Any) -> RelabelSpec:
    return RelabelSpec(source=source.uri, output=output.uri, **what)


def rows(store: Store, run_id: str = "") -> dict[str, dict[str, Any]]:
    """By uri, as a reader of data/ sees them."""
    names = [n for n in store.list(f"data/run={run_id}" if run_id else "data") if "part-" in n]
    found: list[dict[str, Any]] = []
    for name in names:
        found += read_table(store, name).to_pylist()
    assert len({row["uri"] for row in found}) == len(found)
    return {row["uri"]: row for row in found}


def merged(row: Mapping[str, Any], how: Any = sum) -> list[tuple[str, float]]:
    """New names and scores of a stored row, best first, by brute force."""
    scores = defaultdict(list)
    for label, score in zip(row["topk_labels"], row["topk_scores"], strict=True):
        scores[MAP.get(label, label)].append(score)
    return sorted(((n, how(s)) for n, s in scores.items()), key=lambda pair: -pair[1])


def check_labels(row: Mapping[str, Any], expected: list[tuple[str, float]]) -> None:
    assert row["topk_labels"] == [name for name, _ in expected]
    assert row["topk_scores"] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert row["topk_ids"] == [NEW.index(name) for name, _ in expected]
    assert (row["label"], row["label_id"]) == (row["topk_labels"][0], row["topk_ids"][0])
    assert row["score"] == row["topk_scores"][0]


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "source"))


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "output"))


def check_books(result: RunResult) -> None:
    counts = result.counts
    assert counts["listed"] == counts["ok"] + counts["failed"] + counts["skipped"]


class TestLabelMap:
    @pytest.mark.parametrize(("kind", "how"), [("softmax", sum), ("sigmoid", max), ("logits", max)])
    def test_against_brute_force(self, source: Store, output: Store, kind: str, how: Any) -> None:
        scores = softmax(0, 120) if kind == "softmax" else vectors(0, 120, len(CLASSES))
        if kind == "sigmoid":
            scores = torch.from_numpy(scores).sigmoid().numpy()
        table = rows_of(scores, CLASSES, top_k=4, failures=["corrupt", "timeout", "corrupt"])
        close_run(source, table, CLASSES, identity=identity(scores=kind, top_k=4))
        result = relabel(spec(source, output, label_map=MAP))
        before, after = rows(source), rows(output)
        assert before.keys() == after.keys()
        for uri, row in after.items():
            if row["status"] == "ok":
                check_labels(row, merged(before[uri], how))
            else:
                assert row == before[uri]
        assert result.counts == {"listed": 123, "ok": 120, "failed": 3, "skipped": 0}
        assert result.manifest["failures"] == {"corrupt": 2, "timeout": 1}
        assert output.read_json(f"runs/{result.run_id}/classes.json") == NEW
        assert output.read_json("latest.json")["run_id"] == result.run_id
        assert output.exists(f"runs/{result.run_id}/report.html")
        assert not output.list("_open")

    def test_says_when_the_stored_scores_do_not_decide(self, source: Store, output: Store) -> None:
        """A row is unsure exactly if some full row with these top scores has another best."""
        full = softmax(3, 400)
        close_run(source, rows_of(full, CLASSES, top_k=2), CLASSES, identity=identity(top_k=2))
        result = relabel(spec(source, output, label_map=MAP))
        onehot = np.array([[MAP.get(c, c) == n for n in NEW] for c in CLASSES], float)
        truth = [NEW[i] for i in (full @ onehot).argmax(axis=1)]
        after = sorted(rows(output).items())
        wrong = sum(row["label"] != label for (_, row), label in zip(after, truth, strict=True))
        unsure = result.manifest["plan"]["unsure"]["label"]
        assert 0 < wrong <= unsure < 400

    def test_nothing_is_unsure_when_all_scores_are_stored(
        self, source: Store, output: Store
    ) -> None:
        close_run(source, rows_of(softmax(3, 100), CLASSES, top_k=6), CLASSES,
                  identity=identity(top_k=6))  # fmt: skip
        result = relabel(spec(source, output, label_map=MAP, thresholds=0.3))
        assert result.manifest["plan"]["unsure"] == {"label": 0, "labels": 0}

    def test_relabelling_twice_is_relabelling_by_both_maps(
        self, source: Store, output: Store, tmp_path: Path
    ) -> None:
        close_run(source, rows_of(softmax(0, 50), CLASSES, top_k=6), CLASSES,
                  identity=identity(top_k=6))  # fmt: skip
        relabel(spec(source, output, label_map={"lynx": "cat"}))
        third, direct = Store(str(tmp_path / "third")), Store(str(tmp_path / "direct"))
        relabel(spec(output, third, label_map={"cat": "animal", "fox": "animal"}))
        animals = dict.fromkeys(["cat", "lynx", "fox"], "animal")
        relabel(spec(source, direct, label_map=animals))
        chained, at_once = rows(third), rows(direct)
        for uri, row in chained.items():
            assert row["topk_labels"] == at_once[uri]["topk_labels"]
            assert row["topk_scores"] == pytest.approx(at_once[uri]["topk_scores"], rel=1e-5)


class TestThresholds:
    @pytest.mark.parametrize("thresholds", [0.2, {"dog": 0.1, "vehicle": 0.05, "*": 0.4}])
    def test_against_brute_force(
        self, source: Store, output: Store, thresholds: float | dict[str, float]
    ) -> None:
        table = rows_of(softmax(0, 150), CLASSES, top_k=6, failures=["corrupt"])
        close_run(source, table, CLASSES, identity=identity(top_k=6))
        relabel(spec(source, output, label_map=MAP, thresholds=thresholds))
        before = rows(source)
        lengths = set()
        for uri, row in rows(output).items():
            if row["status"] == "failed":
                assert row["labels"] is None
                continue
            expected = [
                name
                for name, score in merged(before[uri])
                if score >= (
                    thresholds if isinstance(thresholds, float)
                    else thresholds.get(name, thresholds["*"])
                )
            ]  # fmt: skip
            assert row["labels"] == expected
            lengths.add(len(expected))
            check_labels(row, merged(before[uri]))
        assert len(lengths) > 1

    def test_says_when_a_class_that_is_not_stored_might_reach(
        self, source: Store, output: Store
    ) -> None:
        full = softmax(5, 300)
        close_run(source, rows_of(full, CLASSES, top_k=2), CLASSES, identity=identity(top_k=2))
        result = relabel(spec(source, output, thresholds=0.15))
        lacking = sum(
            (full[int(uri[-10:-4])] >= 0.15).sum() > len(row["labels"])
            for uri, row in rows(output).items()
        )
        assert 0 < lacking <= result.manifest["plan"]["unsure"]["labels"] < 300

    def test_stored_labels_are_renamed_when_no_threshold_is_given(
        self, source: Store, output: Store
    ) -> None:
        close_run(source, rows_of(softmax(0, 60), CLASSES, top_k=6), CLASSES,
                  identity=identity(top_k=6))  # fmt: skip
        relabel(spec(source, output, thresholds=0.12))
        third = Store(f"{output.uri}-third")
        relabel(spec(output, third, label_map=MAP))
        before = rows(output)
        for uri, row in rows(third).items():
            named = [MAP.get(label, label) for label in before[uri]["labels"]]
            assert row["labels"] == list(dict.fromkeys(named))


def linear(seed: int = 0, width: int = 12) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(width, 5)


HEAD_CLASSES = [f"new {number}" for number in range(5)]


def save_head(layer: torch.nn.Linear, folder: Path, form: str, **config: Any) -> Path:
    """The layer in one of the forms that Head.load reads."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().clone() for name, value in layer.state_dict().items()}
    if form == "npz":
        np.savez(folder / "head.npz", labels=np.array(HEAD_CLASSES), **state)
        return folder / "head.npz"
    named = {str(number): name for number, name in enumerate(HEAD_CLASSES)}
    (folder / "config.json").write_text(json.dumps({"id2label": named} | config))
    if form == "directory":
        full = {f"classifier.{name}": value for name, value in state.items()}
        full["cvt.encoder.weight"] = torch.zeros(3)
        safetensors.torch.save_file(full, folder / "model.safetensors")
        return folder
    torch.save({f"head.{name}": value for name, value in state.items()}, folder / "head.pth")
    return folder / "head.pth"


EMBEDDED = identity(embedding="fixed_size_list<element: float>[12]")


def close_embedded(store: Store, seed: int = 0, count: int = 90) -> Array:
    embeddings = vectors(seed, count)
    table = rows_of(softmax(0, count), CLASSES, embeddings=embeddings, failures=["corrupt"] * 2)
    close_run(store, table, CLASSES, identity=EMBEDDED)
    return embeddings


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
        assert result.counts == {"listed": 92, "ok": 90, "failed": 2, "skipped": 0}
        assert result.manifest["plan"]["unsure"] == {"label": 0, "labels": 0}

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
            ({"weight": np.zeros((2, 3)), "labels": ["a"]}, "does not fit together"),
            ({"weight": np.zeros((2, 3)), "labels": ["a", "a"]}, "two classes of the same name"),
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
        with pytest.raises(UsageError, match="cannot read --head"):
            Head.load(str(tmp_path / name))


class TestLiveRows:
    def test_the_newest_row_of_each_uri(self, store: Store) -> None:
        close_run(store, rows_of(softmax(0, 30), CLASSES, failures=["timeout"] * 3), CLASSES)
        close_run(store, rows_of(softmax(1, 10), CLASSES), CLASSES, rows_per_part=3)
        close_run(store, rows_of(softmax(2, 5), CLASSES, prefix="other"), CLASSES)
        live = LiveRows.of(History.load(store))
        found = [row for table in live.batches(4) for row in table.to_pylist()]
        expected = rows(store, "00000000") | rows(store, "00000001") | rows(store, "00000002")
        assert len(live) == len(found) == 38
        assert {row["uri"]: row for row in found} == expected
        assert not len(live.without(live))

    def test_runs_before_a_full_one_do_not_count(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 30), CLASSES), CLASSES)
        close_run(local_store, rows_of(softmax(1, 10), CLASSES), CLASSES, full=True)
        assert len(LiveRows.of(History.load(local_store))) == 10


class TestAgain:
    def test_only_new_and_changed_rows(self, source: Store, output: Store) -> None:
        failed = rows_of(softmax(0, 0), CLASSES, failures=["timeout"] * 4)
        close_run(source, rows_of(softmax(0, 40), CLASSES), CLASSES)
        close_run(source, failed, CLASSES)
        first = relabel(spec(source, output, label_map=MAP))
        assert first.counts == {"listed": 44, "ok": 40, "failed": 4, "skipped": 0}
        nothing = relabel(spec(source, output, label_map=MAP))
        assert nothing.counts == {"listed": 44, "ok": 0, "failed": 0, "skipped": 44}
        # One failure succeeds when tried again, one image has changed, three are new.
        tried = rows_of(softmax(1, 1), CLASSES)
        tried = tried.set_column(0, tried.schema.field(0), failed["uri"].slice(2, 1))
        changed = rows_of(softmax(2, 1), CLASSES)
        at = changed.schema.get_field_index("source_version")
        changed = changed.set_column(at, changed.schema.field(at), pa.array(["B"]))
        new = rows_of(softmax(3, 3), CLASSES, prefix="new")
        close_run(source, pa.concat_tables([tried, changed, new]), CLASSES)
        result = relabel(spec(source, output, label_map=MAP))
        assert result.counts == {"listed": 47, "ok": 5, "failed": 0, "skipped": 42}
        live = LiveRows.of(History.load(output))
        after = {row["uri"]: row for table in live.batches(10) for row in table.to_pylist()}
        assert len(after) == 47
        assert after[failed["uri"][2].as_py()]["status"] == "ok"
        assert after[changed["uri"][0].as_py()]["source_version"] == "B"

    def test_everything_again_when_asked(self, source: Store, output: Store) -> None:
        close_run(source, rows_of(softmax(0, 40), CLASSES), CLASSES)
        relabel(spec(source, output, label_map=MAP))
        with pytest.raises(UsageError, match=r"fingerprint: .*--full"):
            relabel(spec(source, output, label_map={"cat": "tiger"}))
        again = relabel(spec(source, output, label_map={"cat": "tiger"}, full=True))
        assert again.counts["ok"] == 40
        assert "tiger" in again.manifest["labels"]

    @pytest.mark.parametrize("after", [1, 2, 4, 5, 6])
    def test_interrupted_anywhere_it_is_finished_by_the_same_call(
        self, source: Store, output: Store, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close_run(source, rows_of(softmax(0, 200), CLASSES, failures=["corrupt"]), CLASSES)
        monkeypatch.setattr("pipeline.runs.relabel.rescore._MAX_CELLS", 1)
        write, calls = Store.write_bytes, iter(range(after + 1))

        def fail(self: Store, name: str, data: bytes) -> None:
            if self.uri == output.uri and next(calls) == after:
                raise OSError("disk full")
            write(self, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_bytes", fail)
            with pytest.raises(RunError, match="disk full; start the same command again"):
                relabel(spec(source, output, label_map=MAP))
        assert not output.list("data")
        result = relabel(spec(source, output, label_map=MAP))
        assert len(rows(output)) == 201
        assert result.counts == {"listed": 201, "ok": 200, "failed": 1, "skipped": 0}
        assert not output.list("_open")

    def test_killed_while_publishing(
        self, source: Store, output: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close_run(source, rows_of(softmax(0, 20), CLASSES), CLASSES)

        def fail(self: Store, old: str, new: str) -> None:
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "move", fail)
            with pytest.raises(RunError, match="killed"):
                relabel(spec(source, output, label_map=MAP))
        found = OpenRun.find(output)
        assert found is not None
        assert is_closed(found)
        result = relabel(spec(source, output, label_map=MAP))
        assert result.counts["skipped"] == 20
        runs = sorted({name.split("/")[1] for name in output.list("runs")})
        assert runs == sorted([found.run_id, result.run_id])
        assert len(rows(output)) == 20
        names = [name.split("/")[2] for name in output.list(f"runs/{found.run_id}")]
        assert names == ["classes.json", "manifest.json", "report.html", "review.parquet"]


class TestUsage:
    @pytest.mark.parametrize(
        ("what", "complaint"),
        [
            ({}, "nothing to do"),
            ({"label_map": {"unicorn": "cat"}}, "--label-map names no class: unicorn"),
            ({"thresholds": {"unicorn": 0.5}}, "--thresholds names no class"),
            ({"label_map": MAP, "thresholds": {"lynx": 0.5}}, "--thresholds names no class"),
            ({"top_k": 6}, "--top-k is 6, but .* stores only 5 scores"),
            ({"top_k": 0}, "--top-k is 0"),
            ({"head": "head.npz"}, "stores no embeddings, which --head needs"),
            ({"label_map": MAP, "scores": "sigmoid"}, "--scores needs --head"),
        ],
    )
    def test_is_refused_before_anything_is_written(
        self,
        source: Store,
        output: Store,
        what: dict[str, Any],
        complaint: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        close_run(source, rows_of(softmax(0, 20), CLASSES), CLASSES)
        save_head(linear(), tmp_path, "npz")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=complaint):
            relabel(spec(source, output, **what))
        assert not output.list("")

    def test_the_output_itself(self, source: Store) -> None:
        with pytest.raises(UsageError, match="name another"):
            spec(source, Store(f"{source.uri}/"), label_map=MAP)

    def test_an_output_without_runs(self, source: Store, output: Store) -> None:
        with pytest.raises(UsageError, match="holds no closed run"):
            relabel(spec(source, output, label_map=MAP))

    def test_rows_of_two_models(self, source: Store, output: Store) -> None:
        for fingerprint in ("f00d", "beef"):
            close_run(source, rows_of(softmax(0, 9), CLASSES), CLASSES,
                      identity=identity(fingerprint=fingerprint))  # fmt: skip
        with pytest.raises(UsageError, match="relabelling needs the rows of one model"):
            relabel(spec(source, output, label_map=MAP))

    @pytest.mark.parametrize(
        ("stored", "width", "complaint"),
        [
            ({"pooling": "mean"}, 12, "these have mean"),
            ({"normalize": True}, 12, "normalize True"),
            ({}, 7, "takes embeddings of 7 numbers; these have 12"),
        ],
    )
    def test_embeddings_that_a_head_does_not_take(
        self,
        source: Store,
        output: Store,
        stored: dict[str, Any],
        width: int,
        complaint: str,
        tmp_path: Path,
    ) -> None:
        head = save_head(linear(width=width), tmp_path / "head", "npz")
        table = rows_of(softmax(0, 5), CLASSES, embeddings=vectors(0, 5))
        close_run(source, table, CLASSES, identity=EMBEDDED | stored)
        with pytest.raises(UsageError, match=complaint):
            relabel(spec(source, output, head=str(head)))

    def test_an_unfinished_run_of_another_job(self, source: Store, output: Store) -> None:
        close_run(source, rows_of(softmax(0, 5), CLASSES), CLASSES)
        OpenRun.begin(output, {"inputs": {"uris": ["s3://bucket"], "format": "auto"}})
        with pytest.raises(UsageError, match="unfinished run of another job"):
            relabel(spec(source, output, label_map=MAP))
