"""The review page as a file: what is in it, how large it becomes, that it is one's own."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.monitoring.review import page
from tests.support.pages.review import jpeg, page_text, row

ASSETS = Path(page.__file__).with_name("assets")
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{data}}&\"'\n=1+1,"


class Tags(HTMLParser):
    """Elements and where they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for name, v in attributes if name in ("src", "href", "action")]


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_foreign_names_are_data() -> None:
    plain = Tags(page_text([row(1)]))
    odd = row(1, uri=EVIL, topk_labels=[EVIL] * 5)
    text = page_text([odd], run_id="r<b>", classes=[EVIL], model={"model": EVIL})
    assert Tags(text).tags == plain.tags
    assert data_of(text)["classes"] == [EVIL]
    assert "<title>Review r&lt;b&gt;</title>" in text


def test_the_page_stands_alone() -> None:
    text = page_text([row(1)])
    assert Tags(text).addresses == []
    assert re.findall(r"https?://", text) == []
    assert "default-src 'none'" in text


def test_an_image_has_one_place_and_in_the_sample_that_which_was_drawn_for_it() -> None:
    rows = [row(n) for n in range(3)] + [row(n, "unlike") for n in (9, 0)]
    rows += [row(n, "random") for n in (7, 8, 1)]
    items = data_of(page_text(rows))["items"]
    places = [(item["uri"][-5], item["queue"], item["also"]) for item in items]
    assert places == [
        ("7", "random", []), ("0", "uncertain", ["unlike"]), ("9", "unlike", []),
        ("8", "random", []), ("2", "uncertain", []),
        ("1", "random", ["uncertain"]),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [10, 3000])
def test_its_size_is_bounded_whatever_the_run(count: int) -> None:
    picture = jpeg(1) + bytes(10_000)
    text = page_text([row(n, picture=picture) for n in range(count)])
    data = data_of(text)
    assert len(data["items"]) + data["run"]["unshown"] == count
    assert (data["run"]["unshown"] > 0) == (count == 3000)
    assert len(text) < page.MOST_IMAGES_BYTES + 2**17


def test_many_classes_take_little_and_endless_ones_are_cut() -> None:
    small = page_text([row(1)], classes=[f"class number {n}" for n in range(20_000)])
    assert len(small) < 600_000
    large = page_text([row(1)], classes=[f"{'x' * 1000}{n}" for n in range(20_000)])
    assert len(large) < page.MOST_CLASSES_BYTES + 2**17


def test_a_run_without_labels_has_images_and_nothing_to_choose() -> None:
    bare = row(1, "unlike", topk_labels=None, topk_scores=None)
    (item,) = data_of(page_text([bare], classes=[]))["items"]
    assert item["choices"] == []


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"topk_labels": ["a", " ", "c", "d", "e"]}, ["a"]),
        ({"topk_scores": [math.nan] * 5}, []),
        ({"topk_scores": [0.5, -math.inf, 0.1, 0.1, 0.1]}, ["Bag"]),
        ({"topk_labels": list("abcdefg"), "topk_scores": [0.1] * 7}, list("abcde")),
    ],
)
def test_what_no_file_could_hold_is_no_choice(changes: dict[str, Any], left: list[str]) -> None:
    (item,) = data_of(page_text([row(1, "random", **changes)]))["items"]
    assert [label for label, _ in item["choices"]] == left


def luminance(colour: str) -> float:
    """Of "#rgb" or "#rrggbb", as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    wide = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(wide[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out(scheme: int) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    blocks = re.findall(r":root \{(.*?)\}", (ASSETS / "page.css").read_text(), re.DOTALL)
    colour = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[scheme]))
    pairs = [*product(("ink", "soft", "accent", "good", "bad"), ("page", "card"))]
    pairs += [("ink", "tint"), ("soft", "tint"), ("on-accent", "accent")]
    for text, ground in pairs:
        lower, upper = sorted(luminance(colour[name]) for name in (text, ground))
        assert (upper + 0.05) / (lower + 0.05) >= 4.5, (text, ground)
