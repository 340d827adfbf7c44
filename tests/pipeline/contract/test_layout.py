"""The names below OUT: people's scripts know them, and the code spells each of them once."""

import ast
import time
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Self

import pytest

from pipeline.contract import layout
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.storage.store import Store

ROOT = Path(__file__).parents[3]
NAMES = (
    "_open", "_lease.json", "latest.json", "images.lance", "open.json", "manifest.json",
    "report.html", "classes.json", "changes.parquet", "review.parquet", "review.html",
    "current.json",
    "/rows-",
    "run=", "part-", "/parts", "/publish",
)  # fmt: skip

HOME = "pipeline/contract/layout.py"
ELSEWHERE = {
    "pipeline/contract/spec/finetune.py": {"_open"},
    "pipeline/contract/spec/inputs.py": {"manifest.json"},
    "pipeline/output/open_run.py": {"_open"},
    "pipeline/plan/reuse.py": {"_open"},
    "pipeline/runs/finetune/images/work.py": {"_open"},
    "pipeline/sources/formats/s3_inventory.py": {"manifest.json"},
}
"""S3 Inventory has a manifest, too; and a setting is called policy.discard_open_run."""


def test_names_that_scripts_rely_on() -> None:
    assert layout.data_dir("R") == "data/run=R"
    assert layout.data_file(7) == "part-00007.parquet"
    assert layout.manifest_file("R") == "runs/R/manifest.json"
    assert layout.report_file("R") == "runs/R/report.html"
    assert layout.classes_file("R") == "runs/R/classes.json"
    assert layout.review_page_file("R") == "runs/R/review.html"
    assert (layout.CHANGES, layout.REVIEW) == ("changes.parquet", "review.parquet")
    assert (layout.LATEST, layout.LANCE) == ("latest.json", "images.lance")
    assert layout.CURRENT == "current.json"


def test_what_is_not_closed_is_hidden_from_readers() -> None:
    """Spark, Arrow and Polars take no file whose path has a component that starts with "_"."""
    hidden = [
        layout.LEASE,
        layout.open_record("R"),
        layout.part_file("R", "attempt", 1, 2),
        layout.publish_manifest("R"),
        layout.publish_data_dir("R", "attempt"),
        layout.vanished_part("R", 1),
    ]
    assert all(name.startswith("_") for name in hidden)


def test_a_part_belongs_to_its_attempt() -> None:
    part = layout.part_file("R", "abc", 1, 2)
    assert part.startswith(layout.parts_of_attempt("R", "abc"))
    assert not part.startswith(layout.parts_of_attempt("R", "ab"))
    assert part.startswith(layout.parts_dir("R"))


def test_two_runs_are_told_apart_by_time(local_store: Store) -> None:
    first = layout.new_run_id()
    time.sleep(0.001)
    assert layout.new_run_id() > first


class TestRunIds:
    """They grow whatever the clock does."""

    def set_clock(self, monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return cls.fromtimestamp(moment.timestamp(), tz)

        monkeypatch.setattr(layout, "datetime", Clock)

    def test_grow_when_the_clock_is_set_back(
        self, local_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids: list[str] = []
        for day in (3, 2, 2, 1, 4, 1):
            self.set_clock(monkeypatch, datetime(2026, 1, day, 23, 59, 59, 999_999, UTC))
            run = OpenRun.begin(local_store, OpenRecord())
            local_store.write_bytes(f"{layout.run_dir(run.run_id)}/report.html", b"")
            ids.append(run.run_id)
        assert ids == sorted(set(ids))
        assert all(layout.is_run_id(run_id) for run_id in ids)
        assert ids[1].startswith("20260104T000000Z-00000"), "no further than is needed"

    def test_are_not_led_astray_by_what_only_resembles_one(self) -> None:
        odd = [".DS_Store", "99991231T235959Z-fffff00", "20269999T000000Z-0000000", "7", ""]
        assert abs(int(layout.new_run_id(odd)[:8]) - int(layout.new_run_id()[:8])) <= 1


FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py")]


@pytest.mark.parametrize("path", sorted({*FILES} - {HOME}))
def test_no_other_module_spells_one(path: str) -> None:
    for text in _strings(ast.parse((ROOT / path).read_text())):
        assert {name for name in NAMES if name in text} <= ELSEWHERE.get(path, set()), text


def test_the_layout_spells_them_all() -> None:
    texts = _strings(ast.parse((ROOT / HOME).read_text()))
    assert all(any(name in text for text in texts) for name in NAMES)


def _strings(tree: ast.Module) -> list[str]:
    """Every string of a module but those that document something."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documents
    ]
