"""The review page in a real browser, as people use it; a report, as it looks there."""

import base64
import csv
import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from scipy.stats import binomtest
from selenium.webdriver.common.keys import Keys

from pipeline.contract.corrections import COLUMNS, Correction, read_corrections
from pipeline.contract.spec import FinetuneSpec
from pipeline.monitoring.model.page import render_model
from pipeline.runs.finetune.labelled.labels import Labels
from tests.support.pages.browser import Browser, browser
from tests.support.pages.review import CLASSES, jpeg, row, write_page

EVIL = "</script><img src=x onerror=alert(2)> \"a\", 'b'\r\n=1+1"
RUNS = (f"20261127T024833Z-{number:05x}" for number in count())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture
def chromium(shared: Browser) -> Iterator[Browser]:
    """That complains of nothing while the test goes on."""
    shared.resize(1280)
    yield shared
    assert shared.complaints == []


@pytest.fixture
def run_id() -> str:
    """Of a run that this browser has not seen yet."""
    return next(RUNS)


def corrections(chromium: Browser) -> list[Correction]:
    """The file that the page offers, as the readers of corrections have it."""
    chromium["download"].click()
    return read_corrections(chromium.downloaded("corrections.csv"), "corrections.csv")


def answers(chromium: Browser) -> list[tuple[str, str]]:
    return [(one.verdict, one.label) for one in corrections(chromium)]


def test_a_queue_by_the_keyboard_alone(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    rows = [row(n, "random" if n % 2 == 0 else "uncertain") for n in range(10)]
    chromium.open(write_page(tmp_path, rows, run_id=run_id))
    assert chromium["heading"].text == "Image 1 of 10: Ankle boot?"
    chromium.press("1", "3", "0", "9", Keys.ARROW_RIGHT, "5")
    chromium.press("s", "n", Keys.ENTER)  # the search begins with the first letter
    chromium.press("/", "Raincoat", Keys.ARROW_UP, Keys.ENTER)  # the last choice is a new class
    chromium.press("2", Keys.BACKSPACE, "1", "4")
    assert "1 skipped" in chromium["again"].text
    chromium["again"].send_keys(Keys.ENTER)
    chromium.press("1")
    assert chromium["done-heading"].is_displayed()
    while chromium.ask("return document.activeElement.id") != "download":
        chromium.press(Keys.TAB)
    chromium.press(Keys.ENTER)
    file = tmp_path / "corrections.csv"
    file.write_bytes(chromium.downloaded("corrections.csv"))
    with file.open(newline="", encoding="utf-8") as text:
        found = list(csv.DictReader(text))
    assert tuple(found[0]) == COLUMNS
    order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    labels = {0: CLASSES[0], 1: CLASSES[3], 4: CLASSES[4], 5: CLASSES[1], 6: "Sneaker",
              7: "Raincoat", 8: CLASSES[0], 9: CLASSES[4]}  # fmt: skip
    assert [one["uri"] for one in found] == [f"s3://photos/2026/{n:03d}.jpg" for n in order]
    assert [one["label"] for one in found] == [labels.get(n, "") for n in order]
    assert [one["verdict"] for one in found[2:4]] == ["none", "bad_picture"]
    assert [one["queue"] for one in found[:2]] == ["random", "uncertain"]
    assert {one["run_id"] for one in found} == {run_id}
    assert (found[1]["proposed"], float(found[1]["score"])) == (CLASSES[1], 0.4)
    spec = FinetuneSpec(outputs=("o",), output="m", model="s", labels=(str(file),))
    assert Labels.read(spec).named == {one["uri"]: one["label"] or None for one in found}


def test_progress_is_kept_and_can_be_undone(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    page = write_page(tmp_path, [row(n) for n in range(4)], run_id=run_id)
    chromium.open(page)
    chromium["who"].send_keys("Ada")
    chromium["heading"].click()
    chromium.ask("document.activeElement.blur()")
    chromium.press("1", "0")
    chromium.open(page)
    assert chromium["looked"].text == "2 of 4 looked at"
    assert chromium["heading"].text.startswith("Image 3 of 4")
    assert {one.who for one in corrections(chromium)} == {"Ada"}
    chromium["undo"].click()
    assert chromium["heading"].text.startswith("Image 2 of 4")
    chromium.ask("document.activeElement.blur()")
    chromium.undo()
    assert chromium["looked"].text == "0 of 4 looked at"
    assert not chromium["download"].is_enabled()
    assert not chromium["undo"].is_enabled()


def test_names_come_out_as_they_went_in(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    names = [EVIL, "__proto__", "=HYPERLINK(1)", "-5", "ünï 猫 🐈", 'quote"', "a,b", "x\ny"]
    rows = [row(n, uri=f"/in/{name}", topk_labels=[name, *"bcde"]) for n, name in enumerate(names)]
    chromium.open(write_page(tmp_path, rows, run_id=run_id, classes=names))
    assert len(chromium.all("script, img:not([alt])")) == 2
    chromium.press(*"1" * len(names))
    found = corrections(chromium)
    assert [one.uri for one in found] == [f"/in/{name}" for name in names]
    assert [one.label for one in found] == [one.proposed for one in found] == names
    assert "2 rows have names that begin like a formula" in chromium["status"].text
    chromium.open(tmp_path / "review.html")  # and are found again
    assert chromium["looked"].text == "8 of 8 looked at"


def test_a_file_is_loaded_where_it_is_newer(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    chromium.open(write_page(tmp_path, [row(n) for n in range(4)], run_id=run_id))
    chromium.press("1", "2")
    uris = [f"s3://photos/2026/{n:03d}.jpg" for n in range(5)]
    written = io.StringIO()
    csv.writer(written).writerows([
        COLUMNS,
        [uris[0], 'New "one"', "label", "", "", "", "", "Bob", "2999-01-01T00:00:00Z"],
        [uris[1], "Bag", "label", "", "", "", "", "Bob", "1999-01-01T00:00:00+02:00"],
        [uris[2], "", "none", "", "", "", "", "Bob", ""],
        ["s3://other", "Bag", "label", "", "", "", "", "Bob", ""],
    ])  # fmt: skip
    (tmp_path / "theirs.csv").write_text("\ufeff" + written.getvalue(), "utf-8")
    chromium["load"].send_keys(str(tmp_path / "theirs.csv"))
    assert chromium["status"].text.startswith("Loaded 2 answers; 1 were older than yours, 1 are")
    assert answers(chromium) == [("label", 'New "one"'), ("label", CLASSES[2]), ("none", "")]
    chromium["search"].send_keys("new one")
    assert chromium.all("#found li")[0].text == 'New "one"'
    chromium["load"].send_keys(str(tmp_path / "review.html"))
    assert chromium["status"].text.startswith("review.html is not read: ")


def test_the_accuracy_is_that_of_the_sample(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    rows = [row(n, "random") for n in range(8)] + [row(n) for n in range(8, 16)]
    chromium.open(write_page(tmp_path, rows, run_id=run_id))
    assert chromium["share"].text == "not known yet"
    chromium.all("#filter label")[1].click()
    chromium.ask("document.activeElement.blur()")
    chromium.press("1", "1", "2", "0", "9", Keys.ARROW_RIGHT, "1")
    expected = binomtest(3, 5).proportion_ci(method="wilson")
    assert chromium["share"].text == "60.0 %"
    low, high = f"{100 * expected.low:.1f} %", f"{100 * expected.high:.1f} %"
    assert f"{low} to {high}, from 5 of 8 images" in chromium["interval"].text


def test_twenty_thousand_classes_are_searched(
    chromium: Browser, tmp_path: Path, run_id: str
) -> None:
    names = [f"Föo bar {number}" for number in range(20_000)]
    chromium.open(write_page(tmp_path, [row(1), row(2)], run_id=run_id, classes=names))
    chromium.press("f", "oo 777")
    shown = [option.text for option in chromium.all("#found li")]
    assert shown[0] == "Föo bar 777"
    assert len(shown) == 9  # eight, and the new class
    assert chromium["matches"].text == f"8 of {sum('777' in name for name in names)} classes"
    chromium.press(Keys.ARROW_DOWN, Keys.ENTER)
    assert answers(chromium) == [("label", shown[1])]


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_is_cut_off(chromium: Browser, tmp_path: Path, run_id: str, width: int) -> None:
    long = "Donaudampfschifffahrtsgesellschaft" * 8
    rows = [row(n, uri=f"s3://b/{long}/{n}.jpg", topk_labels=[long, *"bcde"]) for n in range(9)]
    chromium.resize(width)
    chromium.open(write_page(tmp_path, rows, run_id=run_id, model={"model": long}))
    chromium["search"].send_keys("d")
    wide = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert chromium.ask(wide) <= 0
    for choice in chromium.all("#choices button, #verdicts button"):
        assert choice.rect["x"] >= 0
        assert choice.rect["x"] + choice.rect["width"] <= width
        assert choice.rect["height"] >= 44


@pytest.mark.parametrize("width", [320, 1280])
def test_a_report_fits(chromium: Browser, tmp_path: Path, width: int) -> None:
    """A model's, which has all that reports have: tables, pictures, drawings, a matrix."""
    names = ["Donaudampfschifffahrtsgesellschaft" * 2, *"abcdefghijkl"]
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 900, "train": 900}
    uris = [f"s3://bucket/{name * 40}.jpg" for name in names]
    answers = pa.table({
        "uri": uris, "split": ["validation"] * 13, "label": names, "predicted": names[::-1],
        "score": [0.9] * 13, "loss": [3.0] * 13,
    })  # fmt: skip
    metrics = {
        "accuracy": 0.5, "macro_f1": 0.5, "calibration_error": 0.1, "label_issues": 0,
        "images": {"train": 4, "validation": 13}, "champion": None, "gate": None,
        "classes": [{"class": name} | scores for name in names],
        "confusion": [{"label": n, "predicted": n, "images": 123_456} for n in names],
        "epochs": [{"train_loss": 2.0, "loss": 1.0, "accuracy": 0.5}] * 3,
    }  # fmt: skip
    training = {"run_id": "a1", "parent": names[0] * 4, "spec": {}, "versions": {"x": uris[0]}}
    pictures = {uri: base64.b64encode(jpeg(1)).decode() for uri in uris}
    page = tmp_path / "report.html"
    page.write_text(render_model(training, metrics, answers, answers.slice(0, 0), pictures))
    chromium.resize(width)
    chromium.open(page)
    wide = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert chromium.ask(wide) <= 0
    assert len(chromium.all("main > h1, main .matrix, main svg, main figure > img")) == 2 + 3 + 12


def test_what_a_screen_reader_is_told(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    chromium.open(write_page(tmp_path, [row(n) for n in range(3)], run_id=run_id))
    controls = chromium.all("button, input, [role=listbox], [role=group], img#picture, progress")
    unnamed = [one.get_attribute("outerHTML") for one in controls
               if one.is_displayed() and not one.accessible_name]  # fmt: skip
    assert unnamed == []
    outside = "main, header, section[aria-labelledby], details"
    assert all(chromium.ask("return !!arguments[0].closest(arguments[1])", one, outside)
               for one in controls)  # fmt: skip
    assert chromium.all("#choices button")[0].accessible_name.startswith("Ankle boot")
    assert chromium["search"].aria_role == "combobox"
    assert chromium["status"].aria_role == "status"
    chromium.press("2")
    assert chromium["status"].text == "Image 1: Bag."
    assert chromium.ask("return document.activeElement.id") == "heading"
    chromium["search"].send_keys("coa")
    active = chromium["search"].get_attribute("aria-activedescendant")
    assert active is not None
    assert chromium[active].text == "Coat"
    assert chromium[active].get_attribute("aria-selected") == "true"
    assert chromium["search"].get_attribute("aria-expanded") == "true"


def test_the_focus_is_seen_wherever_it_goes(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    chromium.open(write_page(tmp_path, [row(n) for n in range(3)], run_id=run_id))
    chromium.press("1")
    seen = []
    for _ in range(40):
        chromium.press(Keys.TAB)
        name = chromium.ask("return document.activeElement.id || document.activeElement.className")
        mark = """
            const focused = document.activeElement;
            return [focused, focused.closest("label")].filter(Boolean).some((one) => {
              const { outlineStyle, outlineWidth } = getComputedStyle(one);
              return outlineStyle === "solid" && parseFloat(outlineWidth) >= 2;
            });"""
        if chromium.ask("return document.activeElement === document.body"):
            break
        assert chromium.ask(mark), name
        seen.append(chromium.ask("return document.activeElement.outerHTML"))
    kinds = ("radio", ">1<", "search", "none", "bad", "skip", "undo", "who", "download", "load",
             "clear", "Image 2", "<summary")  # fmt: skip
    places = [next(at for at, one in enumerate(seen) if kind in one) for kind in kinds[2:]]
    assert places == sorted(places)


def test_single_keys_can_be_switched_off(chromium: Browser, tmp_path: Path, run_id: str) -> None:
    chromium.open(write_page(tmp_path, [row(n) for n in range(3)], run_id=run_id))
    chromium.all("summary")[0].click()
    chromium["shortcuts"].click()
    chromium.ask("document.activeElement.blur()")
    chromium.press("1", "0", "b")
    assert chromium["looked"].text == "0 of 3 looked at"
    assert chromium["search"].get_attribute("value") == ""
