"""The page of a run: whatever names and messages come from outside stays text."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from pipeline.contract.manifest import Manifest
from pipeline.monitoring.report import LABELS_SHOWN, render
from pipeline.stages.watching.reading import Reading

EVIL = "<script>alert('x')</script> & \"ü\""


def manifest(**changes: Any) -> Manifest:
    content = {
        "run_id": "r", "started": "s", "finished": "f", "files": [], "identity": {}, "spec": {},
        "counts": {"listed": 1234, "ok": 1, "failed": 1, "skipped": 1232},
        "deferred": {"images": 0, "shards": 0},
        "labels": {EVIL: 1}, "failures": {"corrupt": 1},
        "model": {"model": EVIL, "preprocessing": {"a": 1}},
        "plan": {"new": 2}, "timings": {"execute": 4.0, "stage_inferred": 10}, "versions": {},
        **changes,
    }  # fmt: skip
    return Manifest.from_dict(content)


FAILURE = {"uri": EVIL, "error_code": "corrupt", "error_message": EVIL}
SHOT = {"uri": EVIL, "label": None, "jpeg": "eA=="}


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [v or "" for name, v in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_foreign_text_stays_text() -> None:
    page = Page(render(manifest(), [FAILURE], [SHOT], {}))
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 4  # as a label, a uri, a message and the model's name


def test_page_stands_alone() -> None:
    page = Page(render(manifest(), [FAILURE], [SHOT], {}))
    assert page.sources == ["data:image/jpeg;base64,eA=="]


def test_numbers_are_those_of_the_manifest() -> None:
    text = Page(render(manifest(), [], [], {})).text
    assert re.search(r"1,234\s*listed", text)
    assert re.search(r"1,232\s*skipped", text)
    assert re.search(r"2\.5\s*images per second", text)


def test_long_tail_of_labels_is_summed_up() -> None:
    labels = {f"class {n}": 2 for n in range(LABELS_SHOWN + 7)}
    text = Page(render(manifest(labels=labels), [], [], {})).text
    assert f"class {LABELS_SHOWN - 1}" in text
    assert f"class {LABELS_SHOWN}" not in text
    assert re.search(r"7 others\s*14", text)


def test_files_that_were_not_taken() -> None:
    plan = {"not_taken": {"mp4": 2, "without extension": 1}}
    text = Page(render(manifest(plan=plan), [], [], {})).text
    assert "3 files of other kinds not taken: 2 mp4, 1 without extension" in text


def test_empty_run_has_a_page() -> None:
    nothing = dict.fromkeys(("listed", "ok", "failed", "skipped"), 0)
    empty = manifest(counts=nothing, labels={}, failures={}, timings={})
    assert Page(render(empty, [], [], {})).text
    assert empty.timings.images_per_second == 0


@pytest.mark.parametrize(
    ("expected", "done", "totals", "seconds", "line"),
    [
        (100, 0, {}, 5.0, "0 of 100 images, 0.0/s, 0 failed"),
        (100, 20, {"inferred": 50, "failed": 3}, 5.0,
         "70 of 120 images, 10.0/s, 3 failed, 5 s left"),
        (10**6, 0, {"inferred": 1000}, 10.0,
         "1000 of 1000000 images, 100.0/s, 0 failed, 2 h 46 min left"),
        (None, 7, {"inferred": 50}, 5.0, "57 images, 10.0/s, 0 failed"),
        (10, 0, {"inferred": 12}, 1.0, "12 of 10 images, 12.0/s, 0 failed, 0 s left"),
    ],
)  # fmt: skip
def test_progress_in_a_line(
    expected: int | None, done: int, totals: dict[str, float], seconds: float, line: str
) -> None:
    rate = totals.get("inferred", 0) / seconds
    assert str(Reading(totals, rate, expected, done)) == line
