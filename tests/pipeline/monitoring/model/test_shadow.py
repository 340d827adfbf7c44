"""What two models say of the same images: counted over parts, whoever wrote them, and shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.contract.schema import SHADOW
from pipeline.monitoring.model import shadow
from pipeline.monitoring.model.shadow import (
    DIFFERING,
    Disagreement,
    ShadowModel,
    described,
    render_shadow,
)
from pipeline.monitoring.report import sheet_of
from pipeline.output.merging.merge import merge
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.storage.store import Store
from tests.support.outputs.open_runs import METADATA, commit, result_rows

KEY = "k"
MODEL = ShadowModel("<b>new</b>", "w", "f", KEY, ("cow",), ())
Answer = tuple[str, float] | None


def rows(names: Sequence[str], answers: Sequence[Answer] | None, key: str = KEY) -> pa.Table:
    """Rows labelled ü, score 0.5; what the second model says of them, if it was asked."""
    table = result_rows(list(names))
    if answers is None:
        return table
    told = [answer and {"key": key, "label": answer[0], "score": answer[1]} for answer in answers]
    return table.append_column(SHADOW, pa.array(told, SHADOW.type))


def seen(*tables: pa.Table) -> Disagreement:
    found = Disagreement(MODEL)
    for table in tables:
        found.add(table)
    return found


class TestCounts:
    def test_pairs_and_rate(self) -> None:
        found = seen(rows("abcd", [("ü", 0.9), ("bee", 0.8), None, ("bee", 0.1)]))
        told = found.to_dict(ok=5)
        assert (told["compared"], told["not_compared"], told["differing"]) == (3, 2, 2)
        assert told["rate"] == pytest.approx(2 / 3)
        assert told["pairs"] == [{"label": "ü", "shadow_label": "bee", "images": 2}]
        assert told["classes"] == [{"label": "ü", "images": 3, "differing": 2}]
        assert (told["classes_only_it_has"], told["classes_it_lacks"]) == (1, 0)
        assert found.table().to_pylist() == [
            {"uri": uri, "label": "ü", "score": 0.5, "shadow_label": "bee"}
            | {"shadow_score": pytest.approx(score)}
            for uri, score in (("b", 0.8), ("d", 0.1))
        ]

    def test_nothing_was_compared(self) -> None:
        told = seen(rows("ab", None)).to_dict(ok=2)
        assert (told["compared"], told["rate"], told["interval"]) == (0, None, None)
        assert described(told) == "<b>new</b> saw no image of this run"

    def test_answers_of_another_challenger_do_not_count(self) -> None:
        """An earlier attempt of the run had another one, or none."""
        other = rows("ab", [("bee", 0.9)] * 2, key="other")
        assert seen(other, rows("cd", None), rows("e", [("bee", 0.9)])).compared == 1

    def test_a_failed_row_is_not_compared(self) -> None:
        table = result_rows(["a", "b"], {"a"})
        told = pa.array([{"key": KEY, "label": "bee", "score": 1.0}] * 2, SHADOW.type)
        assert seen(table.append_column(SHADOW, told)).compared == 1

    def test_the_surest_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shadow, "DIFFERING_LISTED", 2)
        answers: list[Answer] = [("bee", 0.1), ("bee", 0.4), ("bee", 0.3), ("bee", 0.2)]
        found = seen(rows("ab", answers[:2]))
        found.include(seen(rows("cd", answers[2:])))
        assert found.table()["uri"].to_pylist() == ["b", "c"]
        assert found.images_differing == 4


class TestMerging:
    """The rows of a run with a second model are those of a run without, byte by byte."""

    def test_the_files_are_the_same(self, tmp_path: Path) -> None:
        parts: list[tuple[str, list[Answer] | None]] = [
            ("hcb", [("bee", 0.5), None, ("ü", 0.5)]),
            ("fa", None),
            ("edg", [("bee", 0.5)] * 3),
        ]
        written = []
        for name, is_asked in (("with", True), ("without", False)):
            run = OpenRun.begin(Store(f"{tmp_path}/{name}"), OpenRecord())
            for uris, answers in parts:
                commit(run, rows(uris, answers if is_asked else None), PartFooter())
            watch = Disagreement(MODEL)
            tally = merge(run, METADATA, 5, watch=watch)
            assert (tally.rows, tally.repeated) == (8, 0)
            assert watch.compared == (5 if is_asked else 0)
            staged = f"_open/{run.run_id}/publish/data/{run.record.attempt}"
            listed = sorted(run.store.list(staged))
            written.append([run.store.read_bytes(file) for file in listed])
        assert len(written[0]) == 2
        assert written[0] == written[1]


class TestPage:
    def test_it_shows_pairs_pictures_and_the_surest(self) -> None:
        found = seen(rows("abc", [("<i>", 0.9), ("<i>", 0.8), ("ü", 1.0)]))
        shots = [{"uri": uri, "label": "ü", "jpeg": "eA=="} for uri in "bc"]
        page = render_shadow(found.to_dict(ok=3), found.table(), shots)
        assert page.count("<figure>") == 1
        assert "&lt;b&gt;new&lt;/b&gt; says something else of 2 of 3 images (66.7%;" in page
        assert "<i>" not in page
        assert "Where both are surest (2 of 2 in shadow.parquet)" in page

    def test_the_review_queue_has_pictures_too(self) -> None:
        found = seen(rows("ab", [("bee", 0.9), ("bee", 0.8)]))
        queue = pa.table({"uri": ["a", "b"], "picture": [b"x", None]})
        page = render_shadow(found.to_dict(ok=2), found.table(), [], queue)
        assert page.count("<figure>") == page.count("base64,eA==") == 1
        assert sheet_of(page) == ""

    def test_without_a_second_model_there_is_nothing(self) -> None:
        assert render_shadow(None, None, []) == ""

    def test_without_a_difference_there_is_a_sentence(self) -> None:
        told: Any = seen(rows("a", [("ü", 1.0)])).to_dict(ok=1)
        assert "something else of 0 of 1 images" in render_shadow(told, None, [])
        assert DIFFERING.names[0] == "uri"
