"""A run in a notebook: its numbers and pictures, and nothing that reaches the rest of the page."""

import re
from collections.abc import Iterator

from pipeline.contract.errors import RunError
from pipeline.contract.manifest import Manifest
from pipeline.monitoring.card import card
from pipeline.monitoring.report import render, sheet_of

EVIL = "<script>alert('x')</script></div>"
MANIFEST = Manifest.from_dict(
    {
        "run_id": "r", "files": [], "identity": {}, "spec": {}, "failures": {"corrupt": 1},
        "counts": {"listed": 1234, "ok": 1, "failed": 1, "skipped": 1232},
    }
)  # fmt: skip
SHOTS = [{"uri": f"{EVIL}{name}.jpg", "label": EVIL, "jpeg": name} for name in ("eA==", "eQ==")]
WITH, WITHOUT = render(MANIFEST, [], SHOTS), render(MANIFEST, [], [])


def test_the_pictures_are_those_of_the_report() -> None:
    assert sheet_of(WITH).count("<figure>") == len(SHOTS)
    assert not sheet_of(WITHOUT)
    found = card(MANIFEST, [WITH], {})
    assert re.findall(r'src="data:image/jpeg;base64,(.*?)"', found) == ["eA==", "eQ=="]


def test_a_run_without_pictures_shows_those_of_an_earlier_one() -> None:
    assert sheet_of(WITH) in card(MANIFEST, iter([WITHOUT, WITH, "never read"]), {})
    assert "<figure>" not in card(MANIFEST, [], {})


def test_a_report_that_is_gone_costs_only_the_pictures() -> None:
    def pages() -> Iterator[str]:
        yield WITHOUT
        raise RunError("cannot read <here>")

    found = card(MANIFEST, pages(), {})
    assert "no pictures: cannot read &lt;here&gt;" in found
    assert "1,234" in found


def test_foreign_text_stays_text() -> None:
    found = card(MANIFEST, [WITH], {"report": EVIL})
    assert "<script>" not in found
    assert found.count("<div") == found.count("</div>")


def test_its_style_is_for_itself() -> None:
    [style] = re.findall(r"<style>(.*?)</style>", card(MANIFEST, [], {}), re.DOTALL)
    rules = re.findall(r"([^{}]+)\{", style)
    assert rules
    assert all(rule.strip().startswith(".cvt-run ") for rule in rules)
