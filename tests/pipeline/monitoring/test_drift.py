"""A run beside earlier ones: against formulas, simulation and brute force."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from pipeline.contract.spec import PolicySpec
from pipeline.monitoring import drift
from pipeline.monitoring.comparison import alarms
from pipeline.monitoring.drift import Change, compare
from pipeline.monitoring.review_queue import top_margin
from pipeline.monitoring.summary import Moments, Summary, count_scores, score_bins
from pipeline.runs.result import RunResult
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of

CLASSES = [f"class {number}" for number in range(8)]
Array = npt.NDArray[np.float32]


def softmax(seed: int, rows: int, *, favour: int | None = None, sure: float = 2.0) -> Array:
    """Scores (rows, 8) of a seeded model; `favour` is a class that half of the rows get."""
    rng = np.random.default_rng(seed)
    logits = sure * rng.normal(size=(rows, len(CLASSES)))
    if favour is not None:
        logits[: rows // 2, favour] += 20
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return scores


def vectors(seed: int, rows: int, *, shift: float = 0.0) -> Array:
    """(rows, 16) with means and deviations that differ widely between dimensions."""
    rng = np.random.default_rng(seed)
    scale = np.logspace(-2, 2, 16)
    return (scale * (5 + shift + rng.normal(size=(rows, 16)))).astype(np.float32)


def summary(scores: Array, embeddings: Array | None = None, failed: int = 0) -> Summary:
    names = [CLASSES[i] for i in scores.argmax(axis=1)]
    return Summary(
        ok=len(scores),
        labels=Counter(names),
        failures=Counter({"timeout": failed} if failed else {}),
        scores=count_scores(pa.chunked_array([scores.max(axis=1)])),
        embedding=None if embeddings is None else Moments.of(embeddings),
    )


def by_name(changes: list[Change]) -> dict[str, Change]:
    return {c.what: c for c in changes if c.label is None}


class TestMoments:
    def test_any_split_adds_up_to_the_whole(self) -> None:
        whole = vectors(0, 1000)
        pieces = [Moments.of(piece) for piece in np.split(whole, [1, 10, 700])]
        total = sum(pieces[1:], pieces[0])
        assert total.count == 1000
        np.testing.assert_allclose(total.mean, whole.mean(axis=0, dtype=np.float64))
        np.testing.assert_allclose(total.variance, whole.var(axis=0, dtype=np.float64))

    def test_no_digits_are_lost_beside_a_large_mean(self) -> None:
        values = np.random.default_rng(0).normal(size=(5000, 3)) + 1e8
        total = Moments.of(values[:2000]) + Moments.of(values[2000:])
        np.testing.assert_allclose(total.variance, values.var(axis=0), rtol=1e-6)

    def test_survives_the_manifest(self) -> None:
        before = Moments.of(vectors(0, 300))
        after = Moments.from_dict(before.to_dict())
        np.testing.assert_allclose(after.mean, before.mean, rtol=1e-6)
        np.testing.assert_allclose(after.variance, before.variance, rtol=1e-6)


def test_scores_are_counted_in_even_bins() -> None:
    scores = [0.0, 0.049, 0.051, 0.5, 0.999, 1.0, 1.0000001]
    names = score_bins()
    expected = {names[0]: 2, names[1]: 1, names[10]: 1, names[19]: 3}
    assert count_scores(pa.chunked_array([pa.array([*scores, None], pa.float32())])) == expected


class TestStatistics:
    def test_stability_index_is_jeffreys_divergence(self) -> None:
        before, now = np.array([400, 300, 200, 100]), np.array([100, 100, 100, 100])
        p, q = (before + 0.5) / 1002, (now + 0.5) / 402
        kl = [float((a * np.log(a / b)).sum()) for a, b in ((p, q), (q, p))]
        assert drift.stability_terms(before, now).sum() == pytest.approx(sum(kl))

    @pytest.mark.parametrize(
        ("degrees", "printed"), [(1, 10.828), (5, 20.515), (20, 45.315), (100, 149.449)]
    )
    def test_chi_squared_agrees_with_the_printed_table(self, degrees: int, printed: float) -> None:
        quantile = drift.chi_squared_quantile(0.999, degrees)
        assert quantile == pytest.approx(printed, rel=0.035 if degrees == 1 else 0.015)

    @pytest.mark.parametrize("now", [100, 1000, 20_000])
    def test_the_noise_of_the_index_is_exceeded_once_in_a_thousand(self, now: int) -> None:
        rng = np.random.default_rng(0)
        shares = rng.dirichlet(np.full(40, 0.5))
        exceeded = 0
        for _ in range(2000):
            sides = (rng.multinomial(size, shares) for size in (2000, now))
            before, after = (
                {str(i): int(n) for i, n in enumerate(counts) if n} for counts in sides
            )
            names, old, new = drift.pool(before, after)
            noise = drift.stability_noise(len(names), 2000, now)
            exceeded += drift.stability_terms(old, new).sum() > noise
        assert exceeded <= 8  # 2 expected; the pooled bins are few and not quite chi-squared

    def test_rare_bins_are_pooled_and_no_row_is_lost(self) -> None:
        before = {"a": 900, "b": 90, "c": 9, "d": 1}
        names, old, new = drift.pool(before, {"a": 90, "b": 8, "e": 2})
        assert names == ["a", "b", drift.REST]
        assert (old.tolist(), new.tolist()) == ([900, 90, 10], [90, 8, 2])

    def test_a_label_that_is_new_and_common_is_no_rare_one(self) -> None:
        names, old, new = drift.pool({"a": 5000}, {"a": 90, "b": 10})
        assert (names, old.tolist(), new.tolist()) == (["a", drift.REST], [5000, 0], [90, 10])
        names, _, _ = drift.pool({"a": 5000}, {"a": 9000, "b": 1000})
        assert names == ["a", "b"]

    def test_failure_shares_have_the_noise_that_is_claimed(self) -> None:
        rng = np.random.default_rng(0)
        before, now = (rng.binomial(n, 0.03, 20_000) / n for n in (700, 500))
        h = [drift.cohens_h(p, q) for p, q in zip(before, now, strict=True)]
        assert np.std(h) == pytest.approx(math.sqrt(1 / 700 + 1 / 500), rel=0.05)

    def test_centroid_distance_by_hand(self) -> None:
        before, now = vectors(0, 400), vectors(1, 300, shift=0.7)
        pooled = np.sqrt((400 * before.var(axis=0) + 300 * now.var(axis=0)) / 700)
        d = (now.mean(axis=0) - before.mean(axis=0)) / pooled
        distance = drift.centroid_distance(Moments.of(before), Moments.of(now))
        assert distance == pytest.approx(np.sqrt((d**2).mean()), rel=1e-4)
        assert distance == pytest.approx(0.7, abs=0.1)

    def test_a_dimension_that_never_varies_counts_for_nothing(self) -> None:
        before, now = vectors(0, 200), vectors(1, 200)
        constant = np.full((200, 1), 3.0, np.float32)
        wider = [Moments.of(np.hstack([side, constant])) for side in (before, now)]
        plain = drift.centroid_distance(Moments.of(before), Moments.of(now))
        assert drift.centroid_distance(*wider) == pytest.approx(plain)

    @pytest.mark.parametrize("correlation", [0.0, 0.999])
    def test_centroid_noise_bounds_chance_however_dimensions_depend(
        self, correlation: float
    ) -> None:
        rng = np.random.default_rng(0)
        exceeded = 0
        for _ in range(2000):
            common = rng.normal(size=(400, 1)) * math.sqrt(correlation)
            x = common + rng.normal(size=(400, 8)) * math.sqrt(1 - correlation)
            distance = drift.centroid_distance(Moments.of(x[:300]), Moments.of(x[300:]))
            exceeded += distance > drift.centroid_noise(300, 100)
        assert exceeded <= 8


class TestCompare:
    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("now", [100, 3000])
    def test_unchanged_images_raise_no_alarm(self, seed: int, now: int) -> None:
        before = summary(softmax(seed, 4000), vectors(seed, 4000), 40)
        tonight = summary(softmax(seed + 100, now), vectors(seed + 100, now), now // 100)
        changes = compare(before, tonight)
        assert set(by_name(changes)) == {
            "label shares", "top-1 score", "failures", "embedding centroid",
        }  # fmt: skip
        assert not [str(change) for change in changes if change.alarm]

    @pytest.mark.parametrize("now", [300, 3000])
    @pytest.mark.parametrize(
        ("what", "tonight"),
        [
            ("label shares", lambda n: summary(softmax(1, n, favour=3), vectors(1, n), n // 100)),
            ("top-1 score", lambda n: summary(softmax(1, n, sure=0.7), vectors(1, n), n // 100)),
            ("failures", lambda n: summary(softmax(1, n), vectors(1, n), n // 8)),
            (
                "embedding centroid",
                lambda n: summary(softmax(1, n), vectors(1, n, shift=0.8), n // 100),
            ),
        ],
    )
    def test_each_change_raises_its_own_alarm(self, what: str, tonight, now: int) -> None:  # type: ignore[no-untyped-def]
        before = summary(softmax(0, 4000), vectors(0, 4000), 40)
        raised = {change.what for change in compare(before, tonight(now)) if change.alarm}
        # Half of the rows in one class, of which the model is sure, is a change of both.
        assert raised - ({"top-1 score"} if what == "label shares" else set()) == {what}

    def test_fewer_failures_are_no_alarm(self) -> None:
        before, now = summary(softmax(0, 1000), failed=500), summary(softmax(1, 1000))
        assert not by_name(compare(before, now))["failures"].alarm

    def test_too_few_images_say_nothing(self) -> None:
        few, many = summary(softmax(0, 99)), summary(softmax(1, 1000))
        assert compare(few, many) == compare(many, few) == []

    def test_terms_add_up_to_the_index(self) -> None:
        changes = compare(summary(softmax(0, 900)), summary(softmax(1, 900, favour=0)))
        for what in ("label shares", "top-1 score"):
            terms = [c for c in changes if c.what == what and c.label is not None]
            assert sum(c.value for c in terms) == pytest.approx(by_name(changes)[what].value)
            assert sum(c.now or 0 for c in terms) == pytest.approx(1)
            assert [c.value for c in terms] == sorted((c.value for c in terms), reverse=True)
        assert next(c for c in changes if c.what == "label shares" and c.label).label == "class 0"


def margins(table: pa.Table) -> dict[str, float]:
    """uri to margin, by brute force."""
    found = {}
    for row in table.to_pylist():
        if row["topk_scores"]:
            best, second = sorted(row["topk_scores"], reverse=True)[:2]
            found[row["uri"]] = best - second
    return found


class TestMargin:
    def column(self, *rows: list[float]) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(rows, pa.list_(pa.float32()))])

    def test_best_minus_second(self) -> None:
        scores = self.column([0.5, 0.375, 0.125], [0.75, 0.0], [0.25, 0.25, 0.25])
        assert top_margin(scores, "softmax").tolist() == [0.125, 0.75, 0.0]

    @pytest.mark.parametrize(
        ("kind", "expected"), [("sigmoid", [0.5, 0.5]), ("softmax", [0.75, 0.25])]
    )
    def test_one_score_alone(self, kind: str, expected: list[float]) -> None:
        assert top_margin(self.column([0.75], [0.25]), kind).tolist() == expected

    def test_a_logit_alone_is_not_ranked(self) -> None:
        ranked = np.isfinite(top_margin(self.column([7.0], [7.0, 5.0]), "logits"))
        assert ranked.tolist() == [False, True]


class TestClosedRuns:
    def test_first_run_has_nothing_to_compare_with(self, store: Store) -> None:
        manifest = close_run(store, rows_of(softmax(0, 250), CLASSES), CLASSES)
        assert manifest["drift"]["runs"] == []
        names = [name.rsplit("/", 1)[1] for name in store.list(f"runs/{manifest['run_id']}")]
        assert names == ["classes.json", "manifest.json", "report.html", "review.parquet"]
        page = store.read_bytes(f"runs/{manifest['run_id']}/report.html").decode()
        assert "What changed" not in page
        assert store.list("_open") == {}

    def test_a_change_is_found_told_and_stored(self, local_store: Store) -> None:
        for seed in range(3):
            close_run(local_store, rows_of(softmax(seed, 200), CLASSES), CLASSES)
        rows = rows_of(softmax(9, 300, favour=2), CLASSES, failures=["corrupt"] * 60)
        manifest = close_run(local_store, rows, CLASSES)
        assert manifest["drift"]["runs"] == ["00000002", "00000001", "00000000"]
        assert manifest["drift"]["images_before"] == 600
        found = alarms(manifest)
        assert [line.split(":")[0] for line in found][:2] == ["failures", "failures (corrupt)"]
        assert any(line.startswith("label shares: population stability index") for line in found)
        table = read_table(local_store, "runs/00000003/changes.parquet")
        assert table.schema.remove_metadata().equals(drift.CHANGES)
        raised = table.filter(table["alarm"])
        assert raised.num_rows == len(found)
        share = next(
            row for row in table.to_pylist() if (row["what"], row["label"]) == (
                "label shares", "class 2",
            )
        )  # fmt: skip
        labels = [row["label"] for row in rows.to_pylist() if row["label"]]
        assert share["now"] == pytest.approx(labels.count("class 2") / 300)
        page = local_store.read_bytes("runs/00000003/report.html").decode()
        assert "What changed" in page
        assert "population stability index" in page
        assert "To review: uncertain (10 of 50" in page

    def test_a_change_ends_in_exit_code_3_only_when_asked(self, local_store: Store) -> None:
        for seed, favour in ((0, None), (1, None), (2, 3)):
            manifest = close_run(
                local_store, rows_of(softmax(seed, 300, favour=favour), CLASSES), CLASSES
            )
            strict = RunResult(local_store, manifest, PolicySpec(fail_on_drift=True))
            assert RunResult(local_store, manifest, PolicySpec()).exit_code == 0
            assert strict.exit_code == (3 if favour else 0)
        assert strict.complaint is not None
        statistic = r"label shares: population stability index \d\.\d+, threshold 0\.25"
        assert re.search(statistic, strict.complaint)

    def test_small_night_says_that_it_is_too_small(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 400), CLASSES), CLASSES)
        manifest = close_run(local_store, rows_of(softmax(1, 50, favour=1), CLASSES), CLASSES)
        assert not alarms(manifest)
        page = local_store.read_bytes("runs/00000001/report.html").decode()
        assert "50 images, compared with 400 of the last 1 runs: too few to tell" in page
        assert not local_store.exists("runs/00000001/changes.parquet")

    def test_compares_with_a_week_of_runs_of_the_same_model(self, local_store: Store) -> None:
        other = IDENTITY | {"fingerprint": "beef"}
        for number in range(10):
            identity = other if number == 5 else IDENTITY
            size = 20 if number == 7 else 120
            rows = rows_of(softmax(number, size), CLASSES)
            close_run(local_store, rows, CLASSES, identity=identity)
        manifest = close_run(local_store, rows_of(softmax(99, 150), CLASSES), CLASSES)
        assert manifest["drift"]["runs"] == [f"{n:08d}" for n in (9, 8, 6, 4, 3, 2, 1)]

    def test_the_queue_holds_the_smallest_margins(self, local_store: Store) -> None:
        rows = rows_of(softmax(0, 500), CLASSES, failures=["corrupt"] * 5)
        close_run(local_store, rows, CLASSES, rows_per_part=60, review=17)
        queue = read_table(local_store, "runs/00000000/review.parquet").to_pylist()
        expected = sorted((margin, uri) for uri, margin in margins(rows).items())[:17]
        assert [row["uri"] for row in queue] == [uri for _, uri in expected]
        assert [row["value"] for row in queue] == pytest.approx([m for m, _ in expected])
        assert {row["reason"] for row in queue} == {"uncertain"}
        labels = dict(zip(rows["uri"].to_pylist(), rows["label"].to_pylist(), strict=True))
        assert all(row["label"] == labels[row["uri"]] for row in queue)

    def test_the_queue_holds_the_images_furthest_from_earlier_ones(
        self, local_store: Store
    ) -> None:
        earlier, now = vectors(0, 400), vectors(1, 300)
        now[[7, 70]] += 40 * earlier.std(axis=0)
        now[170] -= 9 * earlier.std(axis=0)
        identity = IDENTITY | {"embedding": "fixed_size_list<float>[16]"}
        for embeddings in (earlier, now):
            rows = rows_of(softmax(2, len(embeddings)), CLASSES, embeddings=embeddings)
            close_run(local_store, rows, CLASSES, identity=identity, review=8)
        queue = read_table(local_store, "runs/00000001/review.parquet").to_pylist()
        strange = [row for row in queue if row["reason"] == "unlike earlier"]
        distances = np.sqrt((((now - earlier.mean(axis=0)) / earlier.std(axis=0)) ** 2).mean(1))
        expected = np.argsort(-distances)[:8]
        assert [row["uri"] for row in strange] == [
            f"s3://bucket/image{i:06d}.jpg" for i in expected
        ]
        assert [row["value"] for row in strange] == pytest.approx(distances[expected], rel=1e-4)
        assert strange[2]["uri"] == "s3://bucket/image000170.jpg"

    def test_no_queue_when_none_is_wanted(self, local_store: Store) -> None:
        close_run(local_store, rows_of(softmax(0, 50), CLASSES), CLASSES, review=0)
        assert not local_store.exists("runs/00000000/review.parquet")

    def test_ties_are_resolved_by_name_whatever_the_order(self, tmp_path: Path) -> None:
        scores = np.tile(np.array([[0.5, 0.5, 0, 0, 0, 0, 0, 0]], np.float32), (40, 1))
        rows = rows_of(scores, CLASSES)
        for name, table in (("a", rows), ("b", rows.take(list(range(39, -1, -1))))):
            store = Store(str(tmp_path / name))
            close_run(store, table, CLASSES, rows_per_part=7, review=5)
            queue = read_table(store, "runs/00000000/review.parquet")
            assert queue["uri"].to_pylist() == sorted(rows["uri"].to_pylist())[:5]
